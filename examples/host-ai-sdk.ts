/**
 * A guarded tool for the Vercel AI SDK: `execute` calls the pipeline, and a refusal is what the model reads. The model
 * here follows a script, so that nothing leaves this machine.
 *
 * Run it: node -C @effect-toolops/source examples/host-ai-sdk.ts
 */
import { generateText, stepCountIs, tool } from "ai"
import { MockLanguageModelV3 } from "ai/test"
import { z } from "zod"
import { call, dispose, forecast, key, runs } from "./hosts/guarded.ts"

// Who the agent works for. In a server this is the user whose request is being answered.
const headers = { "x-api-key": key }

const tools = {
  weather_forecast: tool({
    description: forecast.description ?? "",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }, { abortSignal, toolCallId }) => {
      // The model's name of the call becomes that of spans and records.
      const answer = await call({ city }, { headers, callId: toolCallId, signal: abortSignal })
      return "value" in answer ? answer.value : answer.refusal.message
    }
  })
}

const cities = ["Turin", "Turin", "Lisbon", "Lisbon"]
let turn = 0
const model = new MockLanguageModelV3({
  doGenerate: async () => {
    const city = cities[turn++]
    return {
      content: city === undefined
        ? [{ type: "text", text: "That is all I can find out." }]
        : [{
          type: "tool-call",
          toolCallId: `call-${turn}`,
          toolName: "weather_forecast",
          input: JSON.stringify({ city })
        }],
      finishReason: { unified: city === undefined ? "stop" : "tool-calls", raw: undefined },
      usage: {
        inputTokens: { total: 1, noCache: 1, cacheRead: 0, cacheWrite: 0 },
        outputTokens: { total: 1, text: 1, reasoning: 0 }
      },
      warnings: []
    }
  }
})

const { steps, text } = await generateText({ model, tools, prompt: "How will it be?", stopWhen: stepCountIs(6) })
for (const { toolResults } of steps) {
  for (const { output, toolCallId } of toolResults) console.log(`${toolCallId} ${String(output).split(".")[0]}`)
}
console.log(text)
console.log(`the handler ran ${runs} times`)
await dispose()
