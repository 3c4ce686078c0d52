// The figures of docs/dashboard.md, and what they must not exceed.

import { appendFileSync } from "node:fs";

import type { Page } from "@playwright/test";

import { expect, test } from "../fixtures";

function report(name: string, value: string): void {
  console.log(`${name}: ${value}`);
  const file = process.env["STREAMGATE_FIGURES"];
  if (file) appendFileSync(file, `| ${name} | ${value} |\n`);
}

/** When each frame of the screen came, for so long. */
async function frames(page: Page, milliseconds: number): Promise<number[]> {
  return await page.evaluate((time) => new Promise<number[]>((resolve) => {
    const stamps: number[] = [];
    const began = performance.now();
    const step = (now: number) => {
      stamps.push(now);
      if (now - began < time) requestAnimationFrame(step);
      else resolve(stamps);
    };
    requestAnimationFrame(step);
  }), milliseconds);
}

test("the first load is small and quick", async ({ page, gateway }) => {
  let bytes = 0;
  const sizes = new Map<string, number>();
  page.on("requestfinished", async (request) => {
    const { responseBodySize, responseHeadersSize } = await request.sizes();
    sizes.set(new URL(request.url()).pathname, responseBodySize + responseHeadersSize);
  });
  await page.goto(gateway.link);
  await expect(page.getByRole("heading", { name: "What should the agent do?" })).toBeVisible();
  await page.waitForLoadState("networkidle");
  for (const [path, size] of sizes) if (path === "/" || path.startsWith("/assets/")) bytes += size;
  const timing = await page.evaluate(() => ({
    paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0,
    loaded: (performance.getEntriesByType("navigation")[0] as PerformanceNavigationTiming).domContentLoadedEventEnd,
  }));
  report("first load, everything, as transferred", `${(bytes / 1_024).toFixed(1)} KiB in ${sizes.size} requests`);
  report("first contentful paint", `${timing.paint.toFixed(0)} ms`);
  report("page ready (DOMContentLoaded)", `${timing.loaded.toFixed(0)} ms`);
  expect(bytes).toBeLessThan(120 * 1_024);
});

test("the screen stays smooth while 500 tokens a second come", async ({ dashboard, page }) => {
  await dashboard.say("/tokens 60000 2");
  await expect(dashboard.answer).toContainText("t1000 ", { timeout: 20_000 });
  const last = () => page.evaluate(() => Number(document.querySelector(".turn .segments")!.textContent!.trim().split(" ").at(-1)!.slice(1)));
  const [begun, from] = [await last(), Date.now()];
  const stamps = await frames(page, 10_000);
  const rate = (await last() - begun) / ((Date.now() - from) / 1_000);
  await page.getByRole("button", { name: "Stop" }).click();
  const gaps = stamps.slice(1).map((stamp, index) => stamp - stamps[index]!).sort((left, right) => left - right);
  const perSecond = 1_000 * gaps.length / (stamps.at(-1)! - stamps[0]!);
  report("frames while tokens stream", `${perSecond.toFixed(1)} frames/s at ${rate.toFixed(0)} tokens/s`);
  report("between two frames, 99 %", `${gaps[Math.floor(gaps.length * 0.99)]!.toFixed(1)} ms (longest ${gaps.at(-1)!.toFixed(1)} ms)`);
  expect(rate).toBeGreaterThan(450);
  expect(perSecond).toBeGreaterThan(55);
});

test("a session of 10,000 events opens at once", async ({ dashboard, page, gateway }) => {
  const turn = "/tokens 90\n/tool echo hello\n/say \n/say \n/tokens 90\n/image plot.png\n/say **Done**, with a [link](https://example.com).";
  const { session } = await gateway.task(turn);
  let events = 0;
  for (let turns = 1; events < 10_000; turns++) {
    if (turns > 1) await gateway.task(turn, session);
    events = (await (await gateway.ask("GET", `/v1/sessions/${session}`)).json() as { last_seq: number }).last_seq;
  }
  await page.reload();
  // The one that has not been opened yet.
  await expect(page.locator(".session-open").first()).toContainText("/tokens 90");
  const took = await page.evaluate(() => new Promise<number>((resolve) => {
    const began = performance.now();
    document.querySelector<HTMLElement>(".session-open")!.click();
    const step = () => {
      const last = [...document.querySelectorAll(".turn")].at(-1);
      // The bar tells what the session used once its history is there.
      const done = document.querySelector(".usage") && last?.getAttribute("aria-busy") === "false" && !document.querySelector(".catching-up");
      if (!done) return requestAnimationFrame(step);
      requestAnimationFrame(() => resolve(performance.now() - began));
    };
    requestAnimationFrame(step);
  }));
  report(`opening a session of ${events.toLocaleString("en")} events, to its last frame`, `${took.toFixed(0)} ms`);
  expect(took).toBeLessThan(1_000);
  await expect(dashboard.turns.first()).toContainText("t90");
});
