// swift-tools-version: 6.2
import PackageDescription

/// Settings of every target of ours: a warning is an error.
let strict: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
]

/// The data path also lets the optimiser see across modules: filters and the route table are called per connection.
let dataPath: [SwiftSetting] = strict + [.unsafeFlags(["-cross-module-optimization"], .when(configuration: .release))]

func filter(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(
        name: "Filter\(name)", dependencies: ["Pipeline"] + dependencies, path: "Sources/Filters/\(name)",
        swiftSettings: dataPath)
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
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/groue/GRDB.swift.git", exact: "7.10.0"),
    ],
    targets: [
        // C seams. Each shim returns -errno; nothing else lives there.
        .target(name: "CLinux", path: "Sources/CLinux", cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
        .systemLibrary(
            name: "CIDN2", path: "Sources/CIDN2", pkgConfig: "libidn2", providers: [.apt(["libidn2-dev"])]),
        .systemLibrary(
            name: "CPCRE2", path: "Sources/CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),
        .systemLibrary(name: "CMnl", path: "Sources/CMnl", pkgConfig: "libmnl", providers: [.apt(["libmnl-dev"])]),

        // Core: pure, imports nothing. Everything else meets here.
        .target(name: "Pipeline", path: "Sources/Pipeline/Core", swiftSettings: dataPath),
        .target(
            name: "PipelineSets", dependencies: ["Pipeline"], path: "Sources/Pipeline/Sets", swiftSettings: dataPath),
        .target(
            name: "PipelineLimits", dependencies: ["Pipeline"], path: "Sources/Pipeline/Limits",
            swiftSettings: dataPath),
        .target(
            name: "PipelineFlows", dependencies: ["Pipeline"], path: "Sources/Pipeline/Flows", swiftSettings: dataPath),
        .target(
            name: "PipelineWire", dependencies: ["Pipeline"], path: "Sources/Pipeline/Wire", swiftSettings: dataPath),
        .target(
            name: "PipelineLanguage", dependencies: ["Pipeline"], path: "Sources/Pipeline/Language",
            swiftSettings: strict),
        .target(
            name: "PipelineRouting", dependencies: ["Pipeline", "CIDN2"], path: "Sources/Pipeline/Routing",
            swiftSettings: dataPath),
        .target(
            name: "PipelineRuntime", dependencies: ["Pipeline", "PipelineThreads", "CLinux"],
            path: "Sources/Pipeline/Runtime",
            swiftSettings: dataPath),

        // Filters: a folder each, one line each in Catalog.
        filter("AddressMatch", ["PipelineSets"]),
        filter("SNI", ["PipelineSets", "PipelineWire", "CPCRE2"]),
        filter("AntiSpoof", ["PipelineSets", "PipelineWire"]),
        filter("BackendSelect"),
        filter("ProxyV2", ["PipelineWire"]),
        filter("EgressAccounting", ["PipelineFlows"]),
        filter("RateLimit", ["PipelineLimits"]),
        .target(
            name: "FilterCatalog",
            dependencies: [
                "Pipeline", "FilterAddressMatch", "FilterSNI", "FilterAntiSpoof", "FilterBackendSelect",
                "FilterProxyV2", "FilterEgressAccounting", "FilterRateLimit",
            ], path: "Sources/Filters/Catalog", swiftSettings: strict),

        // What control says and shows: JSON lines, tables, times.
        .target(
            name: "PipelineText", dependencies: ["Pipeline", "CLinux"], path: "Sources/Pipeline/Text",
            swiftSettings: strict),
        .target(
            name: "PipelineThreads", dependencies: ["CLinux", "CMnl"], path: "Sources/Pipeline/Threads",
            swiftSettings: strict),

        // The egress ledger: who sent how much to where, on disk. SQLite, so never part of the data path.
        .target(
            name: "PipelineLedger",
            dependencies: [
                "Pipeline", "PipelineFlows", "PipelineThreads", "PipelineText", "FilterEgressAccounting", "CLinux",
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "GRDBSQLite", package: "GRDB.swift"),
            ],
            path: "Sources/Pipeline/Ledger", swiftSettings: strict),

        // Which backends answer, and which take our header.
        .target(
            name: "PipelineHealth",
            dependencies: [
                "Pipeline", "PipelineWire", "PipelineRouting", "PipelineRuntime", "PipelineThreads", "PipelineText",
                "FilterBackendSelect", "CLinux",
            ], path: "Sources/Pipeline/Health", swiftSettings: strict),
        // Where flow records go: the ledger and collectors; and what conntrack adds to them.
        .target(
            name: "PipelineExport",
            dependencies: [
                "Pipeline", "PipelineFlows", "PipelineRuntime", "PipelineThreads", "PipelineText", "PipelineLedger",
                "FilterEgressAccounting", "CLinux", "CMnl",
            ], path: "Sources/Pipeline/Export", swiftSettings: strict),
        // What is found in flow records as they pass.
        .target(
            name: "PipelineAlerts",
            dependencies: [
                "Pipeline", "PipelineFlows", "PipelineThreads", "PipelineText", "PipelineLedger",
                "FilterEgressAccounting", "CLinux",
            ], path: "Sources/Pipeline/Alerts", swiftSettings: strict),
        // What brings workloads' connections here: the rules for it, and a watch over them.
        .target(
            name: "PipelineIntercept",
            dependencies: [
                "Pipeline", "PipelineRouting", "PipelineRuntime", "PipelineThreads", "PipelineText", "PipelineExport",
                "CLinux", "CMnl",
            ], path: "Sources/Pipeline/Intercept", swiftSettings: strict),

        // The node itself; how it is asked; and what can be asked without one.
        .target(
            name: "PipelineNode",
            dependencies: [
                "Pipeline", "PipelineFlows", "PipelineLanguage", "PipelineRouting", "PipelineRuntime",
                "PipelineThreads",
                "PipelineText", "PipelineHealth", "PipelineLedger", "PipelineExport", "PipelineAlerts",
                "PipelineIntercept", "FilterBackendSelect", "FilterEgressAccounting", "FilterCatalog", "CLinux", "CMnl",
            ], path: "Sources/Pipeline/Node", swiftSettings: strict),
        .target(
            name: "PipelineInspect",
            dependencies: [
                "Pipeline", "PipelineWire", "PipelineRouting", "PipelineText", "PipelineHealth", "PipelineLedger",
                "PipelineNode", "CLinux",
            ], path: "Sources/Pipeline/Inspect", swiftSettings: strict),
        .target(
            name: "PipelineAdmin",
            dependencies: [
                "Pipeline", "PipelineRouting", "PipelineRuntime", "PipelineThreads", "PipelineText", "PipelineHealth",
                "PipelineLedger", "PipelineAlerts", "PipelineIntercept", "PipelineNode", "PipelineInspect", "CLinux",
            ], path: "Sources/Pipeline/Admin", swiftSettings: strict),

        // The command.
        .target(
            name: "PipelinedCommand",
            dependencies: [
                "Pipeline", "PipelineLanguage", "PipelineRouting", "PipelineThreads", "PipelineLedger",
                "PipelineAlerts", "PipelineIntercept", "PipelineNode", "PipelineInspect", "PipelineAdmin",
                "FilterEgressAccounting", "FilterCatalog", "CLinux",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], path: "Sources/Command", swiftSettings: strict),
        .executableTarget(
            name: "pipelined", dependencies: ["PipelinedCommand", "FilterCatalog"], path: "Sources/pipelined",
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

        test("CoreTests", ["Pipeline", "TestSupport"], path: "Core"),
        test("SetsTests", ["Pipeline", "PipelineSets"], path: "Sets"),
        test("LimitsTests", ["Pipeline", "PipelineLimits"], path: "Limits"),
        test("FlowsTests", ["Pipeline", "PipelineFlows"], path: "Flows"),
        test("WireTests", ["PipelineWire", "TestSupport"], path: "Wire"),
        test(
            "LanguageTests",
            [
                "PipelineLanguage", "PipelineLimits", "FilterBackendSelect", "FilterEgressAccounting", "FilterCatalog",
                "TestSupport",
            ], path: "Language", exclude: ["Golden"]),
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
                "FilterProxyV2", "FilterEgressAccounting", "FilterRateLimit", "PipelineSets", "PipelineLimits",
                "PipelineFlows", "PipelineWire", "PipelineRouting", "TestSupport",
            ], path: "Filters"),
        test(
            "LedgerTests",
            [
                "Pipeline", "PipelineFlows", "PipelineLedger", "FilterEgressAccounting", "CLinux",
                .product(name: "GRDB", package: "GRDB.swift"),
            ], path: "Ledger"),
        // Of all that is above the ledger: they share configs, network namespaces and corpora.
        test(
            "ControlTests",
            [
                "Pipeline", "PipelineFlows", "PipelineWire", "PipelineLanguage", "PipelineRouting", "PipelineRuntime",
                "PipelineThreads", "PipelineText", "PipelineHealth", "PipelineLedger", "PipelineExport",
                "PipelineAlerts", "PipelineIntercept", "PipelineNode", "PipelineInspect", "PipelineAdmin",
                "FilterBackendSelect", "FilterEgressAccounting",
                "FilterCatalog", "CLinux", "CMnl", "TestSupport",
            ], path: "Control"),
        test(
            "SystemTests",
            [
                "Pipeline", "PipelineFlows", "PipelineThreads", "PipelineExport", "PipelineIntercept", "PipelineNode",
                "FilterEgressAccounting",
                "TestSupport", "pipelined",
            ], path: "System"),
    ]
)
