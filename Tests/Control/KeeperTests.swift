import CLinux
import Pipeline
import PipelineLanguage
import PipelineRuntime
import TestSupport
import Testing

@testable import PipelineNode
@testable import PipelineRouting

@Suite("What control keeps: listeners, deadlines, retries")
struct KeeperTests {
    private let now = Instant(nanoseconds: 1_000_000_000)

    private func spec(_ text: String, chain: Int = 0) throws -> ListenerSpec {
        ListenerSpec(endpoint: try #require(Endpoint(text)), hint: .tcpRaw, chain: chain, line: 1)
    }

    private func freePort() throws -> UInt16 { try #require(OwnedPort.take()) }

    @Test("a listener that stays keeps its sockets and its number, whatever pipeline it has now")
    func persists() throws {
        let keeper = ListenerKeeper(workers: 2, settings: NodeSettings(), room: 10)
        defer { keeper.closeAll() }
        let first = [PlannedListener(try spec("127.0.0.1:\(try freePort())"), .listen)]
        _ = keeper.apply(first, keeper.openRequired(first).staged, now: now)
        let before = keeper.listeners(worker: 1)
        let moved = PlannedListener(
            ListenerSpec(endpoint: first[0].endpoint, hint: .tcpRaw, chain: 3, line: 9), .expose)
        let more = PlannedListener(try spec("127.0.0.1:\(try freePort())"), .expose)
        let change = keeper.apply([more, moved], [:], now: now)
        #expect(change.opened == [more] && change.closed.isEmpty)
        let after = keeper.listeners(worker: 1)
        #expect(after.last?.descriptor == before.first?.descriptor && after.last?.index == before.first?.index)
        #expect(after.last?.chain == 3)
        let gone = keeper.apply([more], [:], now: now)
        #expect(gone.closed == [moved])
        #expect(keeper.isClosing)
        keeper.everyWorkerHasApplied()
        #expect(!keeper.isClosing)
    }

    @Test(
        "R9: what can't be opened is degraded, said once, and tried again after 30 s; what is required fails as a whole"
    )
    func degrades() throws {
        let keeper = ListenerKeeper(workers: 1, settings: NodeSettings(), room: 10)
        defer { keeper.closeAll() }
        let absent = try spec("192.0.2.77:1")
        #expect(keeper.openRequired([PlannedListener(absent, .listen)]).failures.map(\.error) == [99])
        let plan = [PlannedListener(absent, .dedicated(env: EnvName(org: "a", app: "b", env: "c")))]
        let change = keeper.apply(plan, [:], now: now)
        #expect(change.degraded.map(\.error.error) == [99] && !change.changesSockets)
        #expect(keeper.nextRetry == now + .seconds(30))
        #expect(keeper.retry(now: now + .seconds(29)).isEmpty)
        #expect(keeper.nextRetry == now + .seconds(30))
        #expect(keeper.retry(now: now + .seconds(30)).isEmpty)
        #expect(keeper.nextRetry == now + .seconds(60))
        #expect(keeper.kept.first?.degradation?.since == now)
        // Another address is none of its business.
        #expect(keeper.addressesChanged([IPAddress(v4: 1)], now: now).isEmpty)
    }

    @Test("R27: beyond the room for listeners, the newest is degraded")
    func room() throws {
        let keeper = ListenerKeeper(workers: 1, settings: NodeSettings(), room: 1)
        defer { keeper.closeAll() }
        let plan = try (0..<2).map { _ in PlannedListener(try spec("127.0.0.1:\(try freePort())"), .expose) }
        let change = keeper.apply(plan, [:], now: now)
        #expect(change.opened == [plan[0]])
        #expect(change.degraded.map(\.listener) == [plan[1]])
        #expect(change.degraded.first?.error.description.contains("no free file descriptor") == true)
    }

    private func spec(_ text: String, _ change: (inout ListenerOptions) -> Void) throws -> PlannedListener {
        var options = ListenerOptions()
        change(&options)
        return PlannedListener(
            ListenerSpec(
                endpoint: try #require(Endpoint(text)), hint: .tcpRaw, chain: 0, line: 1, options: options), .listen)
    }

    @Test("`backlog` and `fastopen` change at open sockets; an interface and Multipath TCP make another listener")
    func settings() throws {
        let keeper = ListenerKeeper(workers: 2, settings: NodeSettings(), room: 10)
        defer { keeper.closeAll() }
        let place = "127.0.0.1:\(try freePort())"
        let apply = { (plan: [PlannedListener]) in keeper.apply(plan, keeper.openRequired(plan).staged, now: now) }
        _ = apply([try spec(place) { _ in }])
        let sockets = keeper.kept.map(\.sockets)
        let tuned = apply([
            try spec(place) {
                $0.backlog = 7
                $0.fastOpen = 3
            }
        ])
        #expect(tuned.tuned.count == 1 && tuned.untuned.isEmpty && !tuned.changesSockets)
        #expect(keeper.kept.map(\.sockets) == sockets)
        #expect(keeper.listeners(worker: 0).first?.backlog == 7)
        #expect(
            apply([
                try spec(place) {
                    $0.backlog = 7
                    $0.fastOpen = 3
                }
            ]).isEmpty)
        let moved = apply([try spec(place) { $0.interface = "lo" }])
        #expect(moved.opened.count == 1 && moved.closed.count == 1)
        #expect(keeper.kept.first?.interface == 1)
        keeper.everyWorkerHasApplied()
        #expect(keeper.interfacesChanged(now: now).isEmpty)
        let multipath = apply([
            try spec(place) {
                $0.interface = "lo"
                $0.multipath = true
            }
        ])
        #expect(multipath.opened.count == 1 && multipath.closed.count == 1)
    }

    @Test("an interface that is not there: a `listen` line fails, an `expose` line waits for it")
    func noInterface() throws {
        let keeper = ListenerKeeper(workers: 1, settings: NodeSettings(), room: 10)
        defer { keeper.closeAll() }
        let planned = try spec("127.0.0.1:\(try freePort())") { $0.interface = "nowhere0" }
        let failures = keeper.openRequired([planned]).failures
        #expect(failures.map(\.error) == [ErrorNumber.noDevice])
        #expect(failures.first?.description.contains("at nowhere0: this node has no interface nowhere0; see") == true)
        let waiting = PlannedListener(planned.spec, .expose)
        #expect(keeper.apply([waiting], [:], now: now).degraded.map(\.error.error) == [ErrorNumber.noDevice])
        #expect(keeper.interfacesChanged(now: now).isEmpty)
    }

    @Test("a plan with more ports than a running node has descriptors for is refused, with the numbers")
    func requiredRoom() throws {
        let keeper = ListenerKeeper(workers: 3, settings: NodeSettings(), room: 1, requiredRoom: 2)
        let plan = try (1...3).map { PlannedListener(try spec("127.0.0.1:\($0)"), .listen) }
        #expect(keeper.refusal(of: Array(plan.prefix(2))) == nil)
        #expect(
            keeper.refusal(of: plan)?.contains("3 ports: 9 descriptors for the process and 3 for each worker") == true)
    }

    @Test("ports in a row are one text, whatever stands between two rows")
    func runs() throws {
        let endpoints = try ["[::]:1", "[::]:2", "[::]:3", "0.0.0.0:4", "[::]:4", "[::]:65535", "[::1]:1"].map {
            try #require(Endpoint($0))
        }
        #expect(EndpointRuns.texts(endpoints) == ["[::]:1-3", "0.0.0.0:4", "[::]:4", "[::]:65535", "[::1]:1"])
        #expect(EndpointRuns.texts([]) == [])
    }

    @Test("a drain's deadline stays where it was while later applies name it again")
    func drains() {
        let cell = UnsafeMutablePointer<BackendCell>.allocate(capacity: 1)
        cell.initialize(to: BackendCell(Endpoint(.unspecified, 0)))
        defer {
            cell.deinitialize(count: 1)
            cell.deallocate()
        }
        let drain = { (apply: UInt64) in
            RouteDrain(target: .backend(UnsafePointer(cell)), name: "b", grace: .seconds(10), apply: apply)
        }
        var keeper = DrainKeeper()
        keeper.update([drain(1)], now: now)
        keeper.update([drain(1), drain(2)], now: now + .seconds(5))
        #expect(keeper.due.map(\.deadline) == [now + .seconds(10), now + .seconds(15)])
        #expect(!keeper.isDone(drain(1), now: now + .seconds(10)))
        #expect(keeper.isDone(drain(1), now: now + .seconds(20)))
        #expect(!keeper.isDone(drain(2), now: now + .seconds(20)))
        keeper.update([], now: now)
        #expect(keeper.due.isEmpty)
    }

    @Test("only what differs and can't change is named")
    func keptByARunningNode() {
        var new = NodeSettings()
        #expect(unchangeable(from: NodeSettings(), to: new) == [])
        new.name = "other"
        new.drainTimeout = .seconds(1)
        #expect(unchangeable(from: NodeSettings(), to: new) == [])
        new.workers = 4
        new.adminSocket = "/x"
        #expect(unchangeable(from: NodeSettings(), to: new) == ["workers auto -> 4", "admin none -> unix:/x"])
        var quiet = NodeSettings()
        quiet.loggedRefusals = 5
        #expect(unchangeable(from: NodeSettings(), to: quiet) == [])
        quiet.logConnections = false
        #expect(unchangeable(from: NodeSettings(), to: quiet) == ["log connections -> off"])
    }
}
