export * as SqliteCacheStore from "./SqliteCacheStore.ts"
