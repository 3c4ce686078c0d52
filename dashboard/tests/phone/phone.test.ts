import AxeBuilder from "@axe-core/playwright";

import { expect, test } from "../fixtures";

test("everything has its place on a phone", async ({ dashboard, page }) => {
  await dashboard.picture("phone-welcome");
  await dashboard.ask("/tool ls -la /\n/image plot.png\n/say averylongwordthatneverendsandgoesonandonandonandonandonandonandonandonandon");
  await dashboard.say("/ask Which one? | Red | Blue");
  await expect(page.locator(".ask.open")).toBeVisible();
  await dashboard.picture("phone-question");
  const wider = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  expect(await wider()).toBeLessThanOrEqual(0);
  expect((await new AxeBuilder({ page }).analyze()).violations.map(({ id }) => id)).toEqual([]);
  await page.getByRole("button", { name: "Red", exact: true }).tap();
  await expect(dashboard.answer).toContainText("You chose: Red.");

  await page.getByRole("button", { name: "Sessions" }).tap();
  const list = page.getByRole("navigation", { name: "Sessions" });
  await expect(list).toBeVisible();
  await dashboard.picture("phone-sessions");
  await list.getByRole("button", { name: "New session" }).tap();
  await expect(page.getByRole("heading", { name: "What should the agent do?" })).toBeVisible();
  await expect(list).toBeHidden();

  await page.goBack();
  await expect(dashboard.answer).toContainText("You chose: Red.");
  await page.getByRole("button", { name: "Files", exact: true }).tap();
  await expect(page.getByRole("complementary", { name: "Files" })).toContainText("plot.png");
  expect(await wider()).toBeLessThanOrEqual(0);
  await page.getByRole("button", { name: "Close files" }).tap();
  await expect(dashboard.field).toBeVisible();
});
