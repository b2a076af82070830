/** The page at /docs in a browser: it renders from this server alone, and its "Try it out" works. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Browser, startBrowser, visit } from './support/browser.ts';
import { requirePackages } from './support/debian.ts';
import { type ServerProcess, startStandalone } from './support/process.ts';

let server: ServerProcess;
let browser: Browser;

beforeAll(async () => {
  await requirePackages();
  [server, browser] = await Promise.all([startStandalone(), startBrowser()]);
}, 300_000);
afterAll(async () => {
  await browser?.close();
  await server?.[Symbol.asyncDispose]();
});

test('every operation is listed, one can be tried out, and nothing comes from outside', async () => {
  const { page, complaints, origins } = await visit(browser, `${server.adminUrl}/docs`);
  await page.locator('.opblock').first().waitFor();
  const document = (await (await fetch(`${server.adminUrl}/docs/json`)).json()) as { paths: Record<string, object> };
  const operations = Object.values(document.paths).flatMap((path) => Object.keys(path));
  expect(operations.length).toBeGreaterThanOrEqual(24);
  expect(await page.locator('.opblock').count()).toBe(operations.length);
  expect(await page.locator('.opblock-tag').allInnerTexts()).toContain('tenants\n\nWho shares the system');
  expect(await page.title()).toBe('Magnetar administration');

  const clusters = page.locator('.opblock', { hasText: '/admin/v2/clusters' });
  await clusters.locator('.opblock-summary').click();
  await clusters.getByRole('button', { name: 'Execute' }).click();
  const answer = clusters.locator('.live-responses-table');
  await answer.waitFor();
  expect(await answer.locator('.response-col_status').last().innerText()).toContain('200');
  expect(await answer.innerText()).toContain('"standalone"');

  expect(complaints).toEqual([]);
  expect([...origins]).toEqual([server.adminUrl]);
});

test('sabotage: a page that takes something from elsewhere is stopped, and noticed', async () => {
  const { page, complaints } = await visit(browser, `${server.adminUrl}/docs`);
  await page.locator('.opblock').first().waitFor();
  await page.evaluate(
    `const script = document.createElement('script');
     script.src = 'http://127.0.0.2:1/elsewhere.js';
     document.body.append(script);`,
  );
  await expect.poll(() => complaints.join('\n')).toContain('Content Security Policy');
});
