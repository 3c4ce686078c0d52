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

test("a reload shows the end, however quickly images come; who goes up stays there", async ({ dashboard, page }) => {
  await dashboard.ask("/tokens 300 0\n/image plot.png");
  const gap = () => page.locator(".scroller").evaluate((box) => Math.round(box.scrollHeight - box.clientHeight - box.scrollTop));
  const image = dashboard.answer.getByRole("img", { name: "plot.png" });
  for (let round = 0; round < 6; round += 1) {
    await page.reload();
    await expect.poll(() => image.evaluate((element) => (element as HTMLImageElement).naturalWidth)).toBeGreaterThan(0);
    await expect.poll(gap).toBeLessThan(2);
  }
  const latest = page.getByRole("button", { name: "Latest" });
  await page.locator(".scroller").evaluate((box) => { box.scrollTop -= 200; });
  await expect(latest).toBeVisible();
  await page.locator(".conversation").evaluate((box: HTMLElement) => { box.style.minHeight = `${box.offsetHeight + 300}px`; });
  await expect.poll(gap).toBeGreaterThan(400);
  // As when an image loads between the move to the end and the word of it.
  await latest.evaluate((button: HTMLElement) => {
    button.click();
    const box = document.querySelector<HTMLElement>(".conversation")!;
    box.style.minHeight = `${box.offsetHeight + 300}px`;
  });
  await expect(latest).toBeHidden();
  await expect.poll(gap).toBeLessThan(2);
});
