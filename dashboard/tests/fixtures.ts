// What every browser test has: a gateway, somebody signed in, and no tolerance for errors of the page.

import { test as base, expect, type Page } from "@playwright/test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { Gateway } from "./gateway";

export { expect };

/** The page, as its users see it. */
export class Dashboard {
  constructor(readonly page: Page, readonly gateway: Gateway) {}

  async signIn(link = this.gateway.link): Promise<void> {
    await this.page.goto(link);
    await expect(this.page.getByRole("heading", { name: "What should the agent do?" })).toBeVisible();
  }

  async open(session: string): Promise<void> {
    await this.page.goto(`${this.gateway.url}/#${session}`);
  }

  get field() {
    return this.page.getByLabel("Message to the agent");
  }

  async say(prompt: string): Promise<void> {
    await this.field.fill(prompt);
    await this.page.getByRole("button", { name: /^(Send|Add to the queue)$/ }).click();
  }

  /** Says something and waits until the agent is done with it. */
  async ask(prompt: string): Promise<void> {
    const before = await this.turns.count();
    await this.say(prompt);
    await expect(this.turns).toHaveCount(before + 1);
    await expect(this.lastTurn).toHaveAttribute("aria-busy", "false");
  }

  get turns() {
    return this.page.locator(".turn");
  }

  get lastTurn() {
    return this.turns.last();
  }

  /** What the agent said in its last turn. */
  get answer() {
    return this.lastTurn.locator(".segments");
  }

  async picture(name: string): Promise<void> {
    const directory = process.env["STREAMGATE_TEST_SCREENSHOTS"];
    if (!directory) return;
    mkdirSync(directory, { recursive: true });
    await this.page.screenshot({ path: join(directory, `${name}.png`), animations: "disabled" });
  }
}

/** Errors that a test brings about: of the network, which come and go with it. */
const EXPECTED = /ERR_INTERNET_DISCONNECTED|ERR_CONNECTION_(REFUSED|RESET)|Failed to load resource|WebSocket connection to/;

/** Notes what a page complains about: what its policy forbids, too. */
export function watch(page: Page, complaints: string[]): void {
  page.on("pageerror", (error) => complaints.push(error.stack ?? error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !EXPECTED.test(message.text())) complaints.push(message.text());
  });
}

export const test = base.extend<{ dashboard: Dashboard; complaints: string[] }, { gateway: Gateway }>({
  gateway: [async ({}, use) => {
    const gateway = await Gateway.start();
    await use(gateway);
    await gateway.stop();
  }, { scope: "worker" }],
  complaints: async ({}, use) => {
    const complaints: string[] = [];
    await use(complaints);
    expect(complaints).toEqual([]);
  },
  dashboard: async ({ page, gateway, complaints }, use) => {
    watch(page, complaints);
    const dashboard = new Dashboard(page, gateway);
    await dashboard.signIn();
    await use(dashboard);
  },
});
