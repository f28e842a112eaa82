export * as SqliteApiKeyStore from "./SqliteApiKeyStore.ts"
export * as SqliteCacheStore from "./SqliteCacheStore.ts"
