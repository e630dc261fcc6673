// swift-tools-version: 6.2
import PackageDescription

/// Settings of every target of ours: a warning is an error.
let strict: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
]

/// The data path also lets the optimiser see across modules: filters and the route table are called per connection.
let dataPath: [SwiftSetting] = strict + [.unsafeFlags(["-cross-module-optimization"], .when(configuration: .release))]

/// A part of the daemon, in a folder of its name that opens with a README. docs/ARCHITECTURE.md has who may import whom, and a
/// test holds this file, the imports and that table to each other.
func part(_ name: String, _ dependencies: [Target.Dependency], _ settings: [SwiftSetting] = strict) -> Target {
    .target(
        name: "Pipeline\(name)", dependencies: dependencies, path: "Sources/Pipeline/\(name)", exclude: ["README.md"],
        swiftSettings: settings)
}

func filter(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(
        name: "Filter\(name)", dependencies: ["Pipeline"] + dependencies, path: "Sources/Filters/\(name)",
        exclude: ["README.md"], swiftSettings: dataPath)
}

func test(_ name: String, _ dependencies: [Target.Dependency], path: String, exclude: [String] = []) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, path: "Tests/\(path)", exclude: exclude, swiftSettings: strict)
}

let package = Package(
    name: "pipelined",
    products: [
        .executable(name: "pipelined", targets: ["pipelined"]),
        // For a daemon with filters of its own: Examples/geo-filter.
        .library(name: "PipelinedCommand", targets: ["Pipeline", "PipelineSets", "FilterCatalog", "PipelinedCommand"]),
    ],
    dependencies: [.package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2")],
    targets: [
        // C seams. Each shim returns -errno; nothing else lives there.
        .target(name: "CLinux", path: "Sources/CLinux", cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
        .systemLibrary(
            name: "CIDN2", path: "Sources/CIDN2", pkgConfig: "libidn2", providers: [.apt(["libidn2-dev"])]),
        .systemLibrary(
            name: "CPCRE2", path: "Sources/CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),
        .systemLibrary(
            name: "CSQLite", path: "Sources/CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
        .systemLibrary(
            name: "CCares", path: "Sources/CCares", pkgConfig: "libcares", providers: [.apt(["libc-ares-dev"])]),
        .systemLibrary(name: "CMnl", path: "Sources/CMnl", pkgConfig: "libmnl", providers: [.apt(["libmnl-dev"])]),
        .systemLibrary(
            name: "CNettle", path: "Sources/CNettle", pkgConfig: "nettle", providers: [.apt(["nettle-dev"])]),

        // Core: pure, imports Synchronization alone. Everything else meets here. Each line may import those above it.
        .target(name: "Pipeline", path: "Sources/Pipeline/Core", exclude: ["README.md"], swiftSettings: dataPath),
        part("Sets", ["Pipeline"], dataPath),
        part("Limits", ["Pipeline"], dataPath),
        part("Flows", ["Pipeline"], dataPath),
        part("Wire", ["Pipeline"], dataPath),
        part("Threads", ["Pipeline", "CLinux"]),
        // Text for machines and people: the one writer of JSON, tables, times.
        part("Text", ["Pipeline", "CLinux"]),
        // What passes between a service and its manager; the keeper of `run --keep`.
        part("Keep", ["Pipeline", "PipelineThreads", "PipelineText", "CLinux"]),
        part("Language", ["Pipeline", "PipelineText"]),
        // Tests run with the checks.
        part(
            "Routing", ["Pipeline", "CLinux", "CIDN2"],
            dataPath + [.unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))]),
        part("Runtime", ["Pipeline", "PipelineWire", "PipelineThreads", "CLinux"], dataPath),

        // Filters: a folder each, one line each in Catalog.
        filter("AddressMatch", ["PipelineSets"]),
        filter("SNI", ["PipelineSets", "PipelineWire", "CPCRE2"]),
        filter("AntiSpoof", ["PipelineSets", "PipelineWire"]),
        filter("BackendSelect", ["PipelineWire"]),
        filter("ProxyV2", ["PipelineWire"]),
        filter("ProxyV1", ["PipelineWire"]),
        filter("StartTLS", ["PipelineWire"]),
        filter("EgressAccounting", ["PipelineFlows"]),
        filter("RateLimit", ["PipelineLimits"]),
        .target(
            name: "FilterCatalog",
            dependencies: [
                "Pipeline", "FilterAddressMatch", "FilterSNI", "FilterAntiSpoof", "FilterBackendSelect",
                "FilterProxyV2", "FilterProxyV1", "FilterStartTLS", "FilterEgressAccounting", "FilterRateLimit",
            ], path: "Sources/Filters/Catalog", exclude: ["README.md"], swiftSettings: strict),

        // What control asks of the host: files, programs.
        part("Host", ["Pipeline", "PipelineThreads", "CLinux"]),

        // Records that outlive a crash: snapshot and log.
        part("State", ["Pipeline", "PipelineThreads", "CLinux"]),

        // Desired state as a node keeps it.
        part("LastGood", ["Pipeline", "PipelineRouting", "PipelineState"]),

        // Sockets of netlink(7), and walks over what comes from them.
        part("Netlink", ["CMnl"]),

        // What was changed on this node, by whom and why.
        part(
            "Journal",
            ["Pipeline", "PipelineThreads", "PipelineText", "PipelineRouting", "CLinux", "CNettle"]),

        // The egress ledger: who sent how much to where, on disk. SQLite, so never part of the data path.
        part(
            "Ledger",
            [
                "Pipeline", "PipelineFlows", "PipelineThreads", "PipelineText", "FilterEgressAccounting", "CLinux",
                "CSQLite",
            ]),

        // Which backends answer, and which take our header.
        part(
            "Health",
            [
                "Pipeline", "PipelineWire", "PipelineThreads", "PipelineText", "PipelineRouting", "PipelineRuntime",
                "FilterBackendSelect", "CLinux",
            ]),
        // What names of backends lead to: c-ares, so never part of the data path.
        part(
            "Resolve",
            ["Pipeline", "PipelineThreads", "PipelineText", "FilterBackendSelect", "PipelineHost", "CLinux", "CCares"]),
        // Where flow records go: the ledger and collectors; and what conntrack adds to them.
        part(
            "Export",
            [
                "Pipeline", "PipelineFlows", "PipelineThreads", "PipelineText", "PipelineRuntime",
                "FilterEgressAccounting", "PipelineHost", "PipelineNetlink", "PipelineLedger", "CLinux", "CMnl",
            ]),
        // What is found in flow records as they pass.
        part(
            "Alerts",
            ["Pipeline", "PipelineFlows", "PipelineText", "FilterEgressAccounting", "PipelineLedger", "CLinux"]),
        // What brings workloads' connections here: the rules for it, and a watch over them.
        part(
            "Intercept",
            [
                "Pipeline", "PipelineThreads", "PipelineText", "PipelineRouting", "PipelineRuntime",
                "FilterEgressAccounting", "PipelineHost", "PipelineNetlink", "PipelineExport", "CLinux", "CMnl",
            ]),

        // The node itself; how it is asked; and what can be asked without one.
        part(
            "Node",
            [
                "Pipeline", "PipelineFlows", "PipelineThreads", "PipelineText", "PipelineKeep", "PipelineLanguage",
                "PipelineRouting", "PipelineRuntime", "FilterBackendSelect", "FilterCatalog", "PipelineHost",
                "PipelineNetlink", "PipelineState", "PipelineLastGood", "PipelineJournal", "PipelineLedger",
                "PipelineHealth", "PipelineResolve", "PipelineExport", "PipelineAlerts", "PipelineIntercept", "CLinux",
                "CMnl",
            ]),
        part(
            "Inspect",
            [
                "Pipeline", "PipelineWire", "PipelineText", "PipelineRouting", "PipelineLedger", "PipelineHealth",
                "PipelineNode", "CLinux",
            ]),
        part(
            "Admin",
            [
                "Pipeline", "PipelineThreads", "PipelineText", "PipelineRouting", "PipelineRuntime", "PipelineHost",
                "PipelineJournal", "PipelineLedger", "PipelineHealth", "PipelineResolve", "PipelineAlerts",
                "PipelineIntercept", "PipelineNode", "PipelineInspect", "CLinux",
            ]),

        // The command.
        .target(
            name: "PipelinedCommand",
            dependencies: [
                "Pipeline", "PipelineThreads", "PipelineKeep", "PipelineLanguage", "PipelineRouting",
                "FilterEgressAccounting", "PipelineHost", "PipelineJournal", "PipelineLedger", "PipelineAlerts",
                "PipelineIntercept", "PipelineNode", "PipelineInspect", "PipelineAdmin", "CLinux",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], path: "Sources/Command", exclude: ["README.md"], swiftSettings: strict),
        .executableTarget(
            name: "pipelined", dependencies: ["FilterCatalog", "PipelinedCommand"], path: "Sources/pipelined",
            swiftSettings: strict),

        // Tests mirror Sources. Support is a library of test-only helpers.
        .target(
            name: "TestSupport", dependencies: ["CLinux", "Pipeline"], path: "Tests/Support", swiftSettings: strict),

        // Counted by callgrind: instructions of parsers, lookups and chains (docs/BENCHMARKS.md). No part of the product.
        .executableTarget(
            name: "instructions",
            dependencies: [
                "Pipeline", "PipelineSets", "PipelineFlows", "PipelineWire", "PipelineRouting", "PipelineLanguage",
                "FilterCatalog", "TestSupport",
            ], path: "Benchmarks/instructions", swiftSettings: dataPath),

        // What one change costs at a million routes (docs/BENCHMARKS.md). No part of the product.
        .executableTarget(
            name: "changes",
            dependencies: ["Pipeline", "PipelineRouting", "PipelineLanguage", "PipelineHealth", "FilterCatalog"],
            path: "Benchmarks/changes", swiftSettings: strict),
        // What a start from last good costs, without a node: times and memory of each step (docs/BENCHMARKS.md).
        .executableTarget(
            name: "names",
            dependencies: ["Pipeline", "PipelineRouting", "PipelineState", "PipelineLastGood", "CLinux"],
            path: "Benchmarks/names", swiftSettings: strict),

        test("CoreTests", ["Pipeline", "TestSupport"], path: "Core"),
        test("SetsTests", ["Pipeline", "PipelineSets"], path: "Sets"),
        test("LimitsTests", ["Pipeline", "PipelineLimits"], path: "Limits"),
        test("FlowsTests", ["Pipeline", "PipelineFlows"], path: "Flows"),
        test("TextTests", ["Pipeline", "PipelineText"], path: "Text"),
        // Is killed while it writes.
        .executableTarget(
            name: "state-writer", dependencies: ["Pipeline", "PipelineState", "CLinux"], path: "Tests/StateWriter",
            swiftSettings: strict),
        // Has a filter of its own.
        .executableTarget(
            name: "filter-node", dependencies: ["Pipeline", "FilterCatalog", "PipelinedCommand"],
            path: "Tests/FilterNode", swiftSettings: strict),
        // Optimised in debug builds too: thousands of crashes in seconds.
        .testTarget(
            name: "StateTests",
            dependencies: ["Pipeline", "PipelineState", "PipelineWire", "CLinux", "TestSupport", "state-writer"],
            path: "Tests/State", swiftSettings: strict + [.unsafeFlags(["-O", "-enforce-exclusivity=unchecked"])]),
        test(
            "LastGoodTests", ["Pipeline", "PipelineRouting", "PipelineState", "PipelineLastGood", "TestSupport"],
            path: "LastGood"),
        test("KeepTests", ["Pipeline", "PipelineKeep", "CLinux", "TestSupport"], path: "Keep"),
        test("ThreadsTests", ["Pipeline", "PipelineThreads", "CLinux"], path: "Threads"),
        test("WireTests", ["PipelineWire", "TestSupport"], path: "Wire"),
        test(
            "LanguageTests",
            [
                "PipelineLanguage", "PipelineLimits", "FilterBackendSelect", "FilterEgressAccounting", "FilterCatalog",
                "PipelinedCommand", "TestSupport",
            ], path: "Language", exclude: ["Foreign", "Golden"]),
        test("RoutingTests", ["PipelineRouting", "TestSupport"], path: "Routing"),
        test("RuntimeTests", ["PipelineRuntime", "TestSupport"], path: "Runtime"),
        // Optimised in debug builds too: thousands of seeds in seconds.
        .testTarget(
            name: "SimulationTests", dependencies: ["PipelineRuntime", "FilterCatalog", "TestSupport"],
            path: "Tests/Simulation", swiftSettings: strict + [.unsafeFlags(["-O", "-enforce-exclusivity=unchecked"])]),
        test(
            "FilterTests",
            [
                "FilterCatalog", "FilterAddressMatch", "FilterSNI", "FilterAntiSpoof", "FilterBackendSelect",
                "FilterProxyV2", "FilterProxyV1", "FilterStartTLS", "FilterEgressAccounting", "FilterRateLimit",
                "PipelineSets", "PipelineLimits", "PipelineFlows", "PipelineWire", "PipelineRouting", "TestSupport",
            ], path: "Filters"),
        test(
            "JournalTests",
            ["Pipeline", "PipelineText", "PipelineRouting", "PipelineJournal", "CLinux", "TestSupport"],
            path: "Journal"),
        test(
            "LedgerTests",
            ["Pipeline", "PipelineFlows", "PipelineLedger", "FilterEgressAccounting", "CLinux", "TestSupport"],
            path: "Ledger"),
        // Of all that is above the ledger: they share configs, network namespaces and corpora.
        test(
            "ControlTests",
            [
                "Pipeline", "PipelineFlows", "PipelineWire", "PipelineText", "PipelineLanguage", "PipelineRouting",
                "PipelineRuntime", "FilterBackendSelect", "FilterEgressAccounting", "FilterCatalog", "PipelineHost",
                "PipelineState", "PipelineLastGood", "PipelineLedger", "PipelineHealth", "PipelineResolve",
                "PipelineExport", "PipelineAlerts", "PipelineIntercept", "PipelineNode", "PipelineInspect",
                "PipelineAdmin", "CLinux", "CMnl", "TestSupport",
            ], path: "Control", exclude: ["Plans"]),
        test(
            "SystemTests",
            [
                "Pipeline", "PipelineFlows", "PipelineKeep", "FilterEgressAccounting", "PipelineExport", "CLinux",
                "TestSupport", "pipelined", "filter-node",
            ], path: "System"),
    ]
)
