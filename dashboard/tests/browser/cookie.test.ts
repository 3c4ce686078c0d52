import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { Dashboard, expect, test, watch } from "../fixtures";
import { Gateway } from "../gateway";

const FIXTURES = join(import.meta.dirname, "../../../tests/fixtures/better-auth");
const postgres = process.env["STREAMGATE_TEST_POSTGRES"];

interface Recorded {
  envs: { http: { secret: string; rows: Record<"user" | "session", object[]> } };
  cases: { id: string; cookie_header: string }[];
}

test("the session cookie of a Better Auth application signs in, without a token", async ({ page, complaints }) => {
  if (!postgres) throw new Error("this test needs a Postgres: set STREAMGATE_TEST_POSTGRES=postgres://…, whose user may create databases (scripts/test starts one)");
  const { envs: { http }, cases } = JSON.parse(readFileSync(join(FIXTURES, "session-cookies.json"), "utf8")) as Recorded;
  const name = `streamgate_dashboard_${process.pid}`;
  const url = new URL(postgres);
  const psql = (database: URL, sql: string) => execFileSync("psql", ["-qv", "ON_ERROR_STOP=1", database.href], { input: sql });
  psql(url, `CREATE DATABASE ${name}`);
  const own = new URL(url);
  own.pathname = name;
  try {
    psql(own, readFileSync(join(FIXTURES, "schema.sql"), "utf8"));
    for (const table of ["user", "session"] as const) {
      psql(own, `INSERT INTO "${table}" SELECT * FROM jsonb_populate_recordset(NULL::"${table}", $rows$${JSON.stringify(http.rows[table])}$rows$::jsonb)`);
    }
    const gateway = await Gateway.start({ STREAMGATE_AUTH__BETTER_AUTH__SECRET: http.secret, STREAMGATE_AUTH__BETTER_AUTH__DATABASE_URL: own.href });
    try {
      watch(page, complaints);
      const header = cases.find(({ id }) => id === "http/valid_urlencoded")!.cookie_header;
      const [cookie, ...value] = header.split("=");
      await page.context().addCookies([{ name: cookie!, value: value.join("="), url: gateway.url, httpOnly: true, sameSite: "Lax" }]);
      const dashboard = new Dashboard(page, gateway);
      await dashboard.signIn(gateway.url);
      await expect(page.getByRole("button", { name: "Sign out" })).toHaveCount(0);
      await dashboard.ask("hello");
      await expect(dashboard.answer).toHaveText("You said: hello");
      await page.getByRole("button", { name: "Rename session" }).click();
      await page.getByLabel("Title").fill("By cookie");
      await page.keyboard.press("Enter");
      await expect(page.getByRole("heading", { level: 1 })).toHaveText("By cookie");
      expect(await page.evaluate(() => sessionStorage.length)).toBe(0);
    } finally {
      await gateway.stop();
    }
  } finally {
    psql(url, `DROP DATABASE ${name} WITH (FORCE)`);
  }
});
