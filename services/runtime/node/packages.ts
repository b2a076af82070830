import { createRequire } from 'node:module';

/**
 * Loads a package when it is first needed. Synchronous, and the same from ES modules and from `require`: the package must
 * not use top-level await. @throws the platform's error
 */
export const requirePackage: (name: string) => unknown = createRequire(import.meta.url);
