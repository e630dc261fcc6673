import Pipeline

/// The `node` block: settings of the process.
final class NodeBlock: SettingsBlock {
    let name: String
    let values: NodeSettings

    init(_ name: String, _ values: NodeSettings) {
        self.name = name
        self.values = values
    }

    static let initial = NodeSettings()
    static let descriptor = BlockDescriptor(
        "node", .named, of: NodeBlock.self, "settings of the process")

    static let lines: [Setting<NodeSettings>] = sizes + times + logs + files + sockets + interception + reloads

    private static let sizes: [Setting<NodeSettings>] = [
        Setting(
            SettingLine(
                "workers", [[.word("auto")], [.count(name: "number", 1...1024)]],
                "threads; `auto`: one per core that the process may use", needsRestart: true),
            text: { $0.workers == 0 ? "auto" : "\($0.workers)" },
            apply: { $0.workers = Int(clamping: $1.count() ?? 0) }),
        .count(
            "connections", \.maxConnections, 1...1_000_000, then: ["per", "worker"],
            "concurrent connections; at the limit new ones are refused, established ones are not affected",
            needsRestart: true),
        Setting(
            SettingLine(
                "unrouted", [[.count(name: "number", 1...1_000_000), .word("per"), .word("worker")]],
                "concurrent connections that wait for their first bytes",
                without: "three quarters of `connections`, at most 12k", needsRestart: true),
            text: { $0.maxUnrouted.map { "\(countText(UInt64(clamping: $0))) per worker" } },
            apply: { settings, clause in settings.maxUnrouted = clause.count().map { Int(clamping: $0) } }),
        Setting(
            SettingLine(
                "memory", [[.value(memoryKind)]],
                "memory of the node, including the kernel's socket buffers; a share is of what the cgroup or the "
                    + "machine allows"),
            text: { settings in
                switch settings.memory {
                case .percent(let percent): "\(percent)%"
                case .bytes(let bytes): sizeText(bytes)
                }
            },
            apply: { if let memory = $1.custom(as: MemorySetting.self) { $0.memory = memory } }),
        .count(
            "backlog", \.backlog, 1...65535, "connections waiting to be accepted, per listener and worker",
            needsRestart: true),
        Setting(
            SettingLine(
                "descriptors", [[.choice(name: "tables", ["per_worker", "shared"])]],
                "whether each worker has its own file descriptor table", needsRestart: true),
            text: { $0.ownDescriptors ? "per_worker" : "shared" },
            apply: { $0.ownDescriptors = $1.word() == "per_worker" }),
        .count(
            "idle_upstream_sockets", \.idleUpstreamSockets, 0...65535, then: ["per", "worker"],
            "idle upstream sockets kept for later short connections", needsRestart: true,
            formerly: "spare_sockets"),
    ]

    private static let times: [Setting<NodeSettings>] = [
        .duration(
            "coalesce", \.coalesce, .zero...(.milliseconds(100)),
            "how long bytes of a bulk stream may coalesce in its socket", needsRestart: true),
        .duration(
            "connect_timeout", \.connectTimeout, .milliseconds(10)...(.seconds(120)),
            "how long a connect to one backend may take", needsRestart: true),
        .duration(
            "half_close_timeout", \.halfCloseTimeout, .seconds(1)...(.seconds(86400)),
            "how long a half-closed connection may stay open", needsRestart: true),
        .duration(
            "drain_timeout", \.drainTimeout, .zero...(.seconds(86400)),
            "how long a stopping node waits for its connections"),
        .cooldown,
        Setting(
            SettingLine(
                "keepalive", [[.duration(name: "duration", .seconds(1)...(.seconds(32400)))]],
                "idle time before the kernel probes a peer, in whole seconds", needsRestart: true),
            text: { $0.keepaliveIdle.configText },
            apply: { settings, clause throws(ValueProblem) in
                guard let span = clause.duration() else { return }
                // The kernel takes keepalive times in seconds: a fraction would be lost silently.
                guard span.nanoseconds % 1_000_000_000 == 0 else {
                    throw ValueProblem(
                        message: "`keepalive` takes whole seconds", help: "write `\(span.milliseconds / 1000 + 1)s`")
                }
                settings.keepaliveIdle = span
            }),
        .duration(
            "user_timeout", \.userTimeout, .seconds(1)...(.seconds(3600)),
            "how long sent data may stay unacknowledged before the peer counts as dead",
            needsRestart: true),
    ]

    static func make(_ values: NodeSettings, _ context: BlockContext) -> BlockOutcome {
        var settings = values
        settings.name = context.name
        var remarks: [BlockRemark] = []
        if values.stateDirectory == nil,
            let line = ["journal size", "journal files"].first(where: context.said.contains)
        {
            remarks.append(
                BlockRemark(
                    .warning, at: line, "`\(line)` has no effect: without `state` there is no journal",
                    help: "write `state /var/lib/pipelined`, or remove the line"))
        }
        // A node of one worker and no routes has taken some 8 MiB before its first connection.
        if case .bytes(let size) = values.memory, size < 16 << 20 {
            remarks.append(
                BlockRemark(
                    .warning, at: "memory",
                    "with `memory \(sizeText(size))` this node may refuse every connection (`limits.memory`)",
                    help: "allow at least `16MiB`, plus memory for routes and connections"))
        }
        if let rules = values.interceptRules, rules != .off, values.interceptInterfaces.isEmpty {
            remarks.append(
                BlockRemark(
                    .error, at: "intercept rules",
                    "there are no interception rules to watch: the config does not name the workloads' interfaces",
                    help: "add `intercept interface NAME` to `node`: `vm*` matches every name that begins with `vm`"))
        }
        remarks += logRemarks(values, context.said)
        return BlockOutcome(NodeBlock(context.name, settings), remarks)
    }
}

/// The changed settings of `node` that need a restart, as `backlog 100 -> 200`.
package func unchangeable(from old: NodeSettings, to new: NodeSettings) -> [String] {
    NodeBlock.descriptor.unchangeable(from: NodeBlock(old.name, old), to: NodeBlock(new.name, new))
}

/// The settings of `node` as `check --print` shows them.
package func nodeLines(_ settings: NodeSettings) -> [String] {
    NodeBlock.descriptor.lines(of: NodeBlock(settings.name, settings))
}
