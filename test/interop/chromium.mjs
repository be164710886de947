/*
 * The browser: Debian's Chromium, without a window, which asks nobody but the servers of a test.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const CHROMIUM = "/usr/bin/chromium";

/** Starts the browser, which is gone after the test. */
export async function startBrowser(t) {
  assert.ok(existsSync(CHROMIUM), `there is no ${CHROMIUM}: install it with apt-get install chromium`);
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  t.after(() => browser.close());
  return browser;
}
