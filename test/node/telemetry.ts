import { Context, Effect, Layer, ManagedRuntime, Metric } from "effect"
import { Telemetry } from "effect-toolops/node"

/** Telemetry of a program, with a registry of its own. */
export const startTelemetry = (options: Partial<Telemetry.Options>) => {
  const registry: Metric.MetricRegistry = new Map()
  const runtime = ManagedRuntime.make(
    Telemetry.layer({ serviceName: "test", requestTimeout: "1 minute", ...options }).pipe(
      Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, registry))
    )
  )
  const count = (name: string, signal: string): Record<string, number> => {
    const out: Record<string, number> = {}
    for (const { attributes, hooks, id } of registry.values()) {
      if (id !== name || attributes?.["signal"] !== signal) continue
      const { count } = hooks.get(Context.empty()) as { readonly count: number }
      // Every reason is there from the start.
      if (count > 0) out[attributes["reason"] ?? "sent"] = count
    }
    return out
  }
  return {
    runtime,
    registry,
    /** Ends that many spans, all within one turn of the event loop or nearly so. */
    spans: (count: number, name = "work"): Promise<void> =>
      runtime.runPromise(Effect.repeat(Effect.withSpan(Effect.void, name), { times: count - 1 }).pipe(Effect.asVoid)),
    sent: (signal = "traces"): number => count(Telemetry.exported.name, signal)["sent"] ?? 0,
    lost: (signal = "traces"): Record<string, number> => count(Telemetry.dropped.name, signal),
    close: () => runtime.dispose()
  }
}
