import AxeBuilder from "@axe-core/playwright";
import type { Page } from "@playwright/test";

import { expect, test } from "../fixtures";

/** Nothing that axe knows is wrong, be it serious or not. */
async function check(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map(({ html }) => html) }))).toEqual([]);
}

for (const colorScheme of ["light", "dark"] as const) {
  test(`axe finds nothing, ${colorScheme}`, async ({ dashboard, page }) => {
    test.setTimeout(120_000); // Axe looks four times, for seconds each.
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await check(page);
    await dashboard.picture(`welcome-${colorScheme}`);
    await dashboard.ask("Everything\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- [x] done\n\n```\ncode\n```\n\n/tool ls\n/parallel echo one && exit 1\n/image plot.png\n/continue 1\n/say [link](https://example.com)\n");
    await dashboard.answer.locator("summary").first().click();
    await dashboard.ask("/fail no luck");
    await dashboard.say("/tokens 20\n/ask Which one? | Red | Blue || Why?");
    await expect(page.locator(".ask.open")).toBeVisible();
    await dashboard.say("this one waits");
    await expect(page.getByRole("region", { name: "Queued messages" })).toBeVisible();
    await page.getByRole("button", { name: "Files", exact: true }).click();
    await expect(page.getByRole("complementary", { name: "Files" }).getByRole("listitem").first()).toBeVisible();
    await check(page);
    await dashboard.picture(`conversation-${colorScheme}`);
    await page.getByRole("button", { name: "Delete session" }).click();
    await check(page);
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Stop" }).click();
    await expect(dashboard.answer).toHaveText("You said: this one waits");
    await page.getByRole("button", { name: "Sign out" }).click();
    await check(page);
    await dashboard.picture(`sign-in-${colorScheme}`);
  });
}

test("a screen reader hears what matters, not each word", async ({ dashboard, page }) => {
  const heard = page.getByRole("status").last();
  await expect(heard).toHaveAttribute("aria-live", "polite");
  await heard.evaluate((status) => {
    const said: string[] = [];
    (window as unknown as { said: string[] }).said = said;
    new MutationObserver(() => said.push(status.textContent ?? "")).observe(status, { childList: true, subtree: true, characterData: true });
  });
  await dashboard.ask("/tokens 50 10");
  await expect(heard).toContainText("The agent answered: t1 t2");
  const said = await page.evaluate(() => (window as unknown as { said: string[] }).said);
  // It may have been done before it was seen at work.
  expect(said.filter((text) => text !== "The agent is working.")).toEqual([expect.stringMatching(/^The agent answered: t1 t2 .* t50$/)]);
  expect(said.length).toBeLessThanOrEqual(2);
  expect(await page.locator("[aria-live]:not([role=status]), [role=log]").count()).toBe(0);
});
