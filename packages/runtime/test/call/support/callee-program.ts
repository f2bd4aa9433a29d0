/** The shop in a process of its own, which a test can kill: `callee-program.ts PORT`. Says its address once it listens. */
import { startCallee } from "./call-site.ts";

const callee = await startCallee({ port: Number(process.argv[2] ?? 0) });
process.once("disconnect", () => void callee.stop());
process.send?.(callee.url);
