/** What a RabbitMQ of a stack reads: its settings and its environment. */
import { join } from "node:path";

/** Ports on loopback: clients, Erlang's port mapper, and the server's own tools. */
export interface RabbitmqPorts {
  readonly amqp: number;
  readonly epmd: number;
  readonly distribution: number;
}

/** The user that the app logs in as, made at the first start in place of RabbitMQ's guest. */
export const rabbitmqUser = "rungs";

/** rabbitmq.conf. */
export function rabbitmqConfig({ port, password }: { readonly port: number; readonly password: string }): string {
  return `# RabbitMQ, for messages between processes. Written by rungs up at each start: changes here are lost.
listeners.tcp.1 = 127.0.0.1:${port}

# The only user; there is no guest.
default_user = ${rabbitmqUser}
default_pass = ${password}

# Publishers wait when this much memory is taken, or this little disk is left.
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 100MB
# Written anew at each start, and read back after a crash.
raft.wal_max_size_bytes = 67108864

log.console = true
log.console.level = warning
log.file = false
`;
}

/**
 * The whole environment. Every path that has a default of the system's is set, so that a RabbitMQ installed as a service and this one know
 * nothing of each other.
 */
export function rabbitmqEnvironment({
  folder,
  ports,
  path,
}: {
  readonly folder: string;
  readonly ports: RabbitmqPorts;
  readonly path: string | undefined;
}): Record<string, string | undefined> {
  const at = (name: string) => join(folder, name);
  return {
    PATH: path,
    // For the cookie, which lets tools in.
    HOME: folder,
    LANG: "C.UTF-8",
    RABBITMQ_NODENAME: "rungs@localhost",
    RABBITMQ_CONF_ENV_FILE: at("rabbitmq-env.conf"),
    RABBITMQ_CONFIG_FILE: at("rabbitmq.conf"),
    RABBITMQ_CONFIG_FILES: at("conf.d"),
    RABBITMQ_ADVANCED_CONFIG_FILE: at("advanced.config"),
    RABBITMQ_ENABLED_PLUGINS_FILE: at("enabled_plugins"),
    RABBITMQ_MNESIA_BASE: at("data"),
    RABBITMQ_LOG_BASE: at("log"),
    RABBITMQ_LOGS: "-",
    RABBITMQ_PID_FILE: at("pid"),
    RABBITMQ_DIST_PORT: String(ports.distribution),
    // The script becomes the server. Else it stays its parent and stops it by a tool, which starts a port mapper that outlives both.
    RABBITMQ_ALLOW_INPUT: "1",
    // Erlang's distribution listens everywhere unless told otherwise; its schedulers spin while they wait.
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `-noinput +sbwt none +sbwtdcpu none +sbwtdio none ${loopback}`,
    RABBITMQ_CTL_ERL_ARGS: loopback,
    ERL_EPMD_PORT: String(ports.epmd),
    ERL_EPMD_ADDRESS: "127.0.0.1",
    ERL_CRASH_DUMP_SECONDS: "0",
  };
}

const loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
