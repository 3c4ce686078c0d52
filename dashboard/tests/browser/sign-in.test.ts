import type { Page } from "@playwright/test";

import { Dashboard, expect, test, watch } from "../fixtures";

test("the printed link signs in, and leaves the address bar and the history", async ({ dashboard, page }) => {
  expect(page.url()).toBe(`${dashboard.gateway.url}/`);
  const token = dashboard.gateway.token;
  expect(await page.evaluate(() => ({ ...sessionStorage }))).toEqual({ "streamgate.token": token });
  expect(await page.evaluate(() => localStorage.length)).toBe(0);
  await page.reload();
  await expect(page.getByRole("heading", { name: "What should the agent do?" })).toBeVisible();
  expect(await page.evaluate(() => history.length)).toBeLessThanOrEqual(2);
});

test("who has no token is asked for one, and told when it does not do", async ({ page, gateway, complaints }) => {
  watch(page, complaints);
  await page.goto(gateway.url);
  await page.getByLabel("Token").fill("rc_0123456789");
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("alert")).toHaveText("This token is unknown, expired or revoked.");
  await page.getByLabel("Token").fill(gateway.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("heading", { name: "What should the agent do?" })).toBeVisible();
  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByLabel("Token")).toBeVisible();
  expect(await page.evaluate(() => sessionStorage.length)).toBe(0);
});

/** All that a page says, also to who does not see it, and what is written in its fields. */
function everything(page: Page): Promise<string> {
  return page.evaluate(() => [
    document.title, location.href, document.body.textContent,
    ...[...document.querySelectorAll("input, textarea")].map((field) => (field as HTMLInputElement).value),
  ].join("\n"));
}

for (const [way, leave] of [
  ["after a sign-out", async (page: Page, token: string) => {
    await page.getByRole("button", { name: "Sign out" }).click();
    await expect(page.getByLabel("Token")).toBeVisible();
    expect(await everything(page)).not.toContain("heliotrope");
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Sign in" }).click();
  }],
  ["by a link", async (page: Page, token: string) => {
    await page.evaluate((token) => { location.hash = `token=${token}`; }, token);
  }],
] as const) {
  test(`who signs in ${way} finds nothing of who was there before`, async ({ page, gateway, complaints }) => {
    watch(page, complaints);
    const dashboard = new Dashboard(page, gateway);
    const [ada, grace] = [await gateway.tokenOf(`ada ${way}`), await gateway.tokenOf(`grace ${way}`)];
    await dashboard.signIn(`${gateway.url}/#token=${ada}`);
    await dashboard.ask("heliotrope in a title and an answer\n/tool echo x > heliotrope.txt");
    await page.getByRole("button", { name: "Files", exact: true }).click();
    await expect(page.getByRole("complementary", { name: "Files" }).getByRole("listitem")).toHaveCount(1);
    const session = page.url().split("#")[1]!;
    await page.getByRole("button", { name: "New session" }).click();
    await dashboard.field.fill("heliotrope in a draft");
    await page.goBack();
    await dashboard.field.fill("heliotrope in another draft");
    await expect(page).toHaveTitle(/heliotrope/);
    await expect(page.getByRole("button", { name: /^heliotrope in a title/ })).toBeVisible();

    await leave(page, grace);
    await expect(page.getByRole("heading", { name: "What should the agent do?" })).toBeVisible();
    await expect(page.getByText("Your sessions will be listed here.")).toBeVisible();
    expect(await everything(page)).not.toContain("heliotrope");
    // Also where the other one was, and in a session of one's own.
    await page.evaluate((session) => { location.hash = session; }, session);
    await expect(page.getByRole("main").getByRole("alert")).toContainText("There is no such session, or it is not yours.");
    expect(await everything(page)).not.toContain("heliotrope");
    await page.getByRole("button", { name: "New session" }).click();
    await dashboard.ask("mine");
    expect(await everything(page)).not.toContain("heliotrope");
    await expect(page.locator(".session")).toHaveCount(1);
  });
}

test("a token that is revoked while the page is open signs out", async ({ page, gateway, complaints }) => {
  test.setTimeout(60_000);
  watch(page, complaints);
  const token = await gateway.tokenOf("mallory");
  await page.goto(`${gateway.url}/#token=${token}`);
  await expect(page.getByRole("heading", { name: "What should the agent do?" })).toBeVisible();
  const list = await (await gateway.ask("GET", "/v1/api-tokens?all=true")).json() as { tokens: { token_id: string; hint: string }[] };
  const listed = list.tokens.find(({ hint }) => token.startsWith(hint));
  await gateway.ask("DELETE", `/v1/api-tokens/${listed?.token_id}`);
  await expect(page.getByLabel("Token")).toBeVisible({ timeout: 40_000 });
});

test("the policy lets nothing in that is not the page's own", async ({ page, gateway }) => {
  const answer = await page.goto(gateway.url);
  const headers = answer!.headers();
  expect(headers["content-security-policy"]).toContain("default-src 'none'; script-src 'self'");
  expect(headers["content-security-policy"]).not.toContain("unsafe");
  expect(headers["cache-control"]).toBe("no-cache");
  expect(headers["x-content-type-options"]).toBe("nosniff");
  expect(headers["referrer-policy"]).toBe("no-referrer");
  const forbidden = page.evaluate(() => new Promise((resolve) => {
    document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
    const image = document.createElement("img");
    image.src = "https://example.com/x.png";
    document.body.append(image);
  }));
  expect(await forbidden).toBe("img-src");
  const asset = await page.request.get(await page.locator("script[src]").evaluate((script) => (script as HTMLScriptElement).src));
  expect(asset.headers()["cache-control"]).toBe("public, max-age=31536000, immutable");
  expect(asset.headers()["content-encoding"]).toBe("gzip");
  const text = await page.request.get(gateway.url, { headers: { accept: "*/*" } });
  expect(text.headers()["content-type"]).toContain("text/plain");
  expect(await text.text()).toContain("/v1/stream");
});
