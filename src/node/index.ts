export * as Graceful from "./Graceful.ts"
export * as SqliteApiKeyStore from "./SqliteApiKeyStore.ts"
export * as SqliteCacheStore from "./SqliteCacheStore.ts"
