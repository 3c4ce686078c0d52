import { Component, h, type ComponentType, type FunctionComponent } from "preact";

/** The component, rendered again only when one of its properties is another object. */
export function memo<P extends object>(inner: FunctionComponent<P>): ComponentType<P> {
  return class Memo extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const before = this.props as Readonly<P>;
      const names = new Set([...Object.keys(before), ...Object.keys(next)]) as Set<keyof P>;
      return [...names].some((name) => before[name] !== next[name]);
    }
    override render(properties: P) {
      return h(inner, properties);
    }
  };
}
