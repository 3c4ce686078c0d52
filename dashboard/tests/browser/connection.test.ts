import type { Locator } from "@playwright/test";

import { Dashboard, expect, test, watch } from "../fixtures";
import { Gateway } from "../gateway";

/** The words of `/tokens N`. */
const words = (count: number) => Array.from({ length: count }, (_, index) => `t${index + 1}`).join(" ");

/** Each text that an element had while `during` ran. */
async function seen(element: Locator, during: () => Promise<void>): Promise<string[]> {
  await element.evaluate((node) => {
    const texts: string[] = [];
    (window as unknown as { seen: string[] }).seen = texts;
    new MutationObserver(() => texts.push(node.textContent ?? "")).observe(node, { childList: true, subtree: true, characterData: true });
  });
  await during();
  return await element.evaluate(() => (window as unknown as { seen: string[] }).seen);
}

test("two tabs show the same, and what is answered in one is answered in the other", async ({ dashboard, context, gateway, complaints }) => {
  await dashboard.say("/tokens 60 20\n/ask Which one? | Red | Blue");
  await expect(dashboard.answer).toContainText("t3 ");
  const page = await context.newPage();
  watch(page, complaints);
  const other = new Dashboard(page, gateway);
  await other.signIn();
  await page.getByRole("button", { name: /^\/tokens 60 20/ }).click();
  await expect(other.answer).toContainText(words(60));
  await expect(dashboard.page.locator(".ask.open")).toBeVisible();
  await page.getByRole("button", { name: "Red", exact: true }).click();
  for (const tab of [dashboard, other]) {
    await expect(tab.answer).toContainText("You chose: Red.");
    await expect(tab.page.locator(".ask.open")).toHaveCount(0);
  }
  await other.say("from the other tab");
  await expect(dashboard.answer).toHaveText("You said: from the other tab");
});

test("offline and back: nothing is lost, and what was said meanwhile goes out", async ({ dashboard, page, context }) => {
  await dashboard.say("/tokens 250 20");
  await expect(dashboard.answer).toContainText("t5 ");
  await context.setOffline(true);
  await expect(page.getByText("You are offline.")).toBeVisible();
  await dashboard.picture("offline");
  await dashboard.say("said while offline");
  await context.setOffline(false);
  await expect(page.getByText("You are offline.")).toHaveCount(0);
  await expect(dashboard.turns).toHaveCount(2, { timeout: 20_000 });
  await expect(dashboard.turns.first().locator(".segments")).toHaveText(words(250));
  await expect(dashboard.answer).toHaveText("You said: said while offline");
});

test("a gateway that is killed in mid-stream and comes back loses no word and doubles none", async ({ page, complaints }) => {
  test.setTimeout(120_000);
  const gateway = await Gateway.start();
  try {
    watch(page, complaints);
    const dashboard = new Dashboard(page, gateway);
    await dashboard.signIn();
    // For longer than a restart takes on a busy machine: words are to come live before it and after it.
    await dashboard.say("/tokens 1500 20");
    await expect(dashboard.answer).toContainText("t20 ");
    const whole = words(1_500);
    const texts = await seen(dashboard.answer, async () => {
      await gateway.kill();
      await expect(page.locator(".connection")).toHaveText("The connection is lost. Connecting again…");
      await dashboard.picture("reconnecting");
      await gateway.run();
      await expect(dashboard.lastTurn).toHaveAttribute("aria-busy", "false", { timeout: 80_000 });
    });
    await expect(dashboard.answer).toHaveText(whole);
    // Nor was anything wrong on the way.
    const wrong = texts.map((text) => text.trim()).filter((text) => !whole.startsWith(text));
    expect(wrong).toEqual([]);
    expect(texts.length).toBeGreaterThan(20);
    await expect(page.locator(".connection")).toHaveCount(0);
  } finally {
    await gateway.stop();
  }
});
