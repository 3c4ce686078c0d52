import { render } from "preact";
import { start } from "./auth";
import { App } from "./components/app";
import "./style.css";

void start();
render(<App />, document.querySelector("#app")!);
