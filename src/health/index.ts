export * as HealthCheck from "./HealthCheck.ts"
export * as HealthError from "./HealthError.ts"
export * as HealthRegistry from "./HealthRegistry.ts"
export * as HealthRoutes from "./HealthRoutes.ts"
