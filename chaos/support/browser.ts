/** A browser without a window. What is used of playwright is declared here: its own types want those of a browser's page. */
import { createRequire } from 'node:module';

interface Locator {
  first(): Locator;
  last(): Locator;
  locator(selector: string): Locator;
  getByRole(role: 'button', options: { readonly name: string }): Locator;
  waitFor(): Promise<void>;
  click(): Promise<void>;
  count(): Promise<number>;
  innerText(): Promise<string>;
  allInnerTexts(): Promise<string[]>;
}

interface PageEvents {
  readonly console: { type(): string; text(): string };
  readonly pageerror: Error;
  readonly request: { url(): string };
  readonly requestfailed: { url(): string; failure(): { readonly errorText: string } | null };
}

interface Page {
  on<Name extends keyof PageEvents>(name: Name, listener: (event: PageEvents[Name]) => void): void;
  goto(url: string): Promise<unknown>;
  title(): Promise<string>;
  locator(selector: string, options?: { readonly hasText: string }): Locator;
  /** Runs a script in the page. */
  evaluate(script: string): Promise<unknown>;
}

export interface Browser {
  newPage(): Promise<Page>;
  close(): Promise<void>;
}

interface Playwright {
  readonly chromium: {
    launch(options: { readonly executablePath: string; readonly args: readonly string[] }): Promise<Browser>;
  };
}

const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Debian's Chromium, which keeps to itself. */
export async function startBrowser(): Promise<Browser> {
  const { chromium } = createRequire(import.meta.url)('playwright-core') as Playwright;
  return await chromium.launch({ executablePath: '/usr/bin/chromium', args: ARGS });
}

/** A page that was opened, and what came of it. */
export interface Visit {
  readonly page: Page;
  /** What the browser complained of. */
  readonly complaints: string[];
  /** The origins that it asked for something. */
  readonly origins: Set<string>;
}

/** Opens a page and watches it. */
export async function visit(browser: Browser, url: string): Promise<Visit> {
  const page = await browser.newPage();
  const complaints: string[] = [];
  const origins = new Set<string>();
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('requestfailed', (request) => complaints.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on('request', (request) => {
    const { protocol, origin } = new URL(request.url());
    if (protocol !== 'data:') origins.add(origin);
  });
  await page.goto(url);
  return { page, complaints, origins };
}
