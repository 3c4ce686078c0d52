import { defineConfig, devices } from "@playwright/test";

// The system's Chromium: nothing is downloaded.
const executablePath = process.env["STREAMGATE_TEST_CHROMIUM"] ?? "/usr/bin/chromium";
const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"];

export default defineConfig({
  testDir: "tests",
  outputDir: process.env["STREAMGATE_TEST_ARTIFACTS"] ?? "test-results",
  timeout: 30_000,
  globalTimeout: 600_000,
  workers: 2,
  fullyParallel: true,
  forbidOnly: true,
  reporter: "list",
  use: { launchOptions: { executablePath, args }, trace: "retain-on-failure", locale: "en-GB" },
  projects: [
    { name: "unit", testMatch: "unit/*.test.ts" },
    { name: "browser", testMatch: "browser/*.test.ts", use: { viewport: { width: 1280, height: 820 } } },
    { name: "phone", testMatch: "phone/*.test.ts", use: { ...devices["Pixel 7"] } },
  ],
});
