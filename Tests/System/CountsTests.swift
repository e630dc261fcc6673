import Foundation
import Glibc
import TestSupport
import Testing

/// What a connection and a round trip take, in counts that hardly move with the machine: system calls, allocations, retains. Times are the
/// benchmark's business (docs/BENCHMARKS.md); these are held here. The benchmark's own counting does the work.
@Suite("Counts that a connection may cost", .serialized)
struct CountsTests {
    /// Ten: accept; recv of the hello; connect of a spare socket; header and hello in one send; the client's registration with epoll; the
    /// reply's recv and send; the recv that meets the client's RST; the spare socket's disconnect; close. The half is for
    /// an accept that finds nobody, and a socket that has to be made, now and then.
    static let callsPerConnection = 10.5
    /// recv and send, each way. A hundredth is the opening of the 64 connections.
    static let callsPerRoundTrip = 4.1
    /// Slots, buffers and blocks come from pools, and nothing per event is counted by reference: what is left is the growth of a pool, and
    /// what the control side does meanwhile.
    static let allocations = 0.01
    static let retainsAndReleases = 0.05

    @Test(
        "A connection and a round trip take no more system calls than they need",
        .enabled(if: BenchmarkCounts.obstacle == nil, "\(BenchmarkCounts.obstacle ?? "")"))
    func systemCalls() throws {
        let counts = try BenchmarkCounts(of: Binary.path)
        for (load, limit) in [("short", CountsTests.callsPerConnection), ("rtt", CountsTests.callsPerRoundTrip)] {
            let calls = try counts.calls("syscalls", load).unwrap("counted system calls of \(load)")
            // How many events one wait brings is the load's doing, not the node's.
            let own = calls.filter { !$0.key.hasPrefix("epoll_wait") && !$0.key.hasPrefix("epoll_pwait") }
            #expect(own.values.reduce(0, +) <= limit, "\(load): \(own)")
            #expect(own["sendto", default: 0] + own["sendmsg", default: 0] >= 1, "\(load): nothing was relayed: \(own)")
        }
    }

    @Test(
        "The data path allocates nothing and counts no reference, with the bare chain and with every stage",
        .enabled(if: BenchmarkCounts.releaseObstacle == nil, "\(BenchmarkCounts.releaseObstacle ?? "")"),
        arguments: ["pipelined", "stages"])
    func allocations(config: String) throws {
        let counts = try BenchmarkCounts(of: BenchmarkCounts.release, config: config)
        for load in ["short", "rtt"] {
            let calls = try counts.calls("allocations", load).unwrap("counted allocations of \(load)")
            let references = calls.filter { $0.key.contains("retain") || $0.key.contains("release") }
            #expect(references.count == 2, "no probe on the Swift runtime: \(calls)")
            #expect(references.values.reduce(0, +) <= CountsTests.retainsAndReleases, "\(load): \(calls)")
            let allocations = calls.filter { references[$0.key] == nil }
            #expect(allocations["malloc"] != nil, "no probe on the allocator: \(calls)")
            #expect(allocations.values.reduce(0, +) <= CountsTests.allocations, "\(load): \(calls)")
        }
    }
}

/// The deterministic part of `Benchmarks/run`, of one binary.
struct BenchmarkCounts {
    private let results: [String: Any]
    private let config: String

    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path
    /// Debug builds retain and allocate where the release doesn't, so those two are counted of this one.
    static let release = root + "/.build/release/pipelined"

    /// Why calls can't be counted here; nil: they can.
    static let obstacle: String? = {
        guard geteuid() == 0 else { return "counting calls of another process needs root" }
        for program in ["python3", "cc", "unshare"] where Child.find(program) == nil {
            return "\(program) is missing: run make deps"
        }
        if Child.find("perf") == nil, Child.find("strace") == nil { return "neither perf nor strace is installed" }
        return sysconf(Int32(_SC_NPROCESSORS_ONLN)) < 2 ? "the benchmark needs two cores" : nil
    }()

    /// Why allocations and retains of a release build can't be; nil: they can.
    static let releaseObstacle: String? = {
        if let obstacle { return obstacle }
        guard Child.find("perf") != nil, Child.find("nm") != nil else { return "perf or nm is missing: run make deps" }
        guard access("/sys/kernel/tracing/uprobe_events", W_OK) == 0 else { return "the kernel takes no uprobes" }
        guard let built = modified(release) else { return "no release build: run make build" }
        let files = FileManager.default.enumerator(atPath: root + "/Sources")?.compactMap { $0 as? String } ?? []
        let newest = files.filter { $0.hasSuffix(".swift") || $0.hasSuffix(".h") || $0.hasSuffix(".c") }
            .compactMap { modified("\(root)/Sources/\($0)") }.max()
        return built < (newest ?? built) ? "the release build is older than the sources: run make build" : nil
    }()

    private static func modified(_ path: String) -> Date? {
        let resolved = URL(fileURLWithPath: path).resolvingSymlinksInPath().path
        return try? FileManager.default.attributesOfItem(atPath: resolved)[.modificationDate] as? Date
    }

    /// - Parameter config: what the benchmark calls the relay.
    init(of binary: String, config: String = "pipelined") throws {
        self.config = config
        let folder = try TemporaryFolder()
        let output = folder.path + "/counts.json"
        let child = try Child(
            BenchmarkCounts.root + "/Benchmarks/run",
            ["--only", config, "--workloads", "counts", "--rounds", "1", "--pipelined", binary, "--json", output])
        child.closeInput()
        guard try child.waitForExit(Deadline(seconds: 600)) == .code(0) else {
            throw Failure("Benchmarks/run:\n\(child.output)")
        }
        let parsed = try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: output)))
        results = try (parsed as? [String: Any]).unwrap("an object of results")
    }

    /// Calls for each operation, by name. `what` and `load` as the results name them.
    func calls(_ what: String, _ load: String) -> [String: Double]? {
        let all = results["counts"] as? [String: Any]
        let node = all?[config] as? [String: Any]
        return (node?[load] as? [String: Any])?[what] as? [String: Double]
    }
}
