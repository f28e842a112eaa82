import type { HealthStatus } from "../../health/HealthCheck.ts"
import * as Check from "../../internal/options.ts"

/** Checks the shares from which something is degraded and unhealthy. */
export const thresholds = (
  where: string,
  options: { readonly warn?: number | undefined; readonly critical?: number | undefined }
): { readonly warn: number; readonly critical: number } => {
  const warn = Check.finite(where, "warn", options.warn ?? 0.8, { above: 0, maximum: 1 })
  return {
    warn,
    critical: Check.finite(where, "critical", options.critical ?? Math.max(0.95, warn), { minimum: warn, maximum: 1 })
  }
}

/** What a value means that is compared with both. */
export const byRatio = (value: number, warn: number, critical: number): HealthStatus =>
  value >= critical ? "unhealthy" : value >= warn ? "degraded" : "healthy"
