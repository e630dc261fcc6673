import Glibc
import Pipeline
import PipelineRouting
import TestSupport
import Testing

@testable import PipelineLastGood
@testable import PipelineState

/// A node's table that is cut or written to while it is served from: nobody is served by another's routes, and all is read
/// again (ADR 0116).
@Suite("R4, R23: a table that is lost under way")
struct MappedLossTests {
    private func route(_ id: String, _ env: String, _ name: String, _ more: String = "") -> String {
        "{\"route_id\":\"\(id)\",\"env_id\":\"\(env)\",\"hostname\":\"\(name)\",\"listen_port\":443,"
            + "\"protocol_hint\":\"tls_passthrough\",\"backend_process_type\":\"web\",\"backend_port\":80\(more)}"
    }

    /// Plain routes, one that is read, one that waits, an instance that waits; changed since the start.
    private func node(_ folder: Folder, _ clock: TestClock) throws -> (keeper: Keeper, path: String) {
        let keeper = try Keeper(folder.state, tables: 1) { clock.drive($0) }
        var world = World()
        for env in ["env_a", "env_b"] {
            world.set(.env, env, "{\"env_id\":\"\(env)\",\"app_id\":\"app\",\"org_id\":\"org\"}")
            world.set(
                .instance, "i_\(env)",
                "{\"instance_id\":\"i_\(env)\",\"env_id\":\"\(env)\",\"process_type\":\"web\",\"status\":\"ready\","
                    + "\"overlay_ipv6\":\"fd00::\(env == "env_a" ? 1 : 2)\"}")
        }
        for number in 0..<600 {
            world.set(.route, "r\(number)", route("r\(number)", "env_\(number % 2 == 0 ? "a" : "b")", "n\(number).org"))
        }
        world.set(.route, "idle", route("idle", "env_a", "idle.org", ",\"idle_timeout_seconds\":5"))
        try keeper.take(world.document)
        world.told()
        world.set(.route, "later", route("later", "env_b", "n0.org"))
        try keeper.take(world.change)
        world.told()
        try keeper.writeTable(withCompaction: true)
        try keeper.restart()
        #expect(keeper.routing.mappedRoutes == 600)
        world.set(.route, "r1", nil)
        world.set(.route, "r2", route("r2", "env_a", "new.org"))
        world.set(.route, "r3", route("r3", "env_b", "n3.org", ",\"max_connections\":3"))
        world.set(.route, "fresh", route("fresh", "env_b", "fresh.org"))
        try keeper.take(world.change)
        var names: [String] = []
        _ = LinuxDisk().names(in: folder.state, &names)
        return (keeper, "\(folder.state)/\(try names.first { $0.hasPrefix("table.") }.unwrap("table"))")
    }

    private func listing(_ keeper: Keeper) -> [String] { keeper.routing.snapshot.listing().map { "\($0)" } }

    private func find(_ name: String, _ snapshot: RouteTableSnapshot) -> String? {
        var server = ServerName()
        _ = Array(name.utf8).withUnsafeBufferPointer { server.set(wire: $0) }
        let found = snapshot.handle.named(server, at: DestinationAddress(Endpoint(.unspecified, 443)))
        return found.map { "\($0.pointee.id.string) \($0.pointee.owner.pointee.name.path)" }
    }

    @Test("cut at any length: a lookup finds what it found, or nothing; then all is there again", arguments: 0..<12)
    func cut(part: Int) throws {
        let folder = Folder()
        let clock = TestClock()
        let (keeper, path) = try node(folder, clock)
        let before = listing(keeper)
        let old = keeper.routing.snapshot
        let names = (0..<600).map { "n\($0).org" } + ["idle.org", "new.org", "fresh.org"]
        let found = names.map { find($0, old) }
        #expect(keeper.state?.mendTable(of: keeper.routing) == nil, "nothing is wrong with it")
        truncate(path, part * 8192)
        for (name, known) in zip(names, found) {
            // Of one whose shard was made anew the id may be lost, and nothing else.
            let now = find(name, old)
            #expect(now == nil || now?.split(separator: " ").last == known?.split(separator: " ").last, "\(name)")
        }
        let report = try #require(keeper.state?.mendTable(of: keeper.routing))
        #expect(report.problems.list.count == 1)
        #expect(listing(keeper) == before)
        #expect(names.map { find($0, keeper.routing.snapshot) } == found)
        #expect(keeper.state?.takeNotices().map(\.event) == ["state_table_damaged"])
        #expect(keeper.state?.mendTable(of: keeper.routing) == nil, "it is mended")
        // It goes on as any.
        try keeper.take("{\"format\":\"pipelined.change/1\",\"delete\":{\"routes\":[\"r0\"]}}")
        #expect(find("n0.org", keeper.routing.snapshot) == "later org/app/env_b")
        try keeper.writeTable(withCompaction: false)
        let last = listing(keeper)
        try keeper.restart()
        #expect(keeper.routing.mappedRoutes > 500 && listing(keeper) == last)
    }

    @Test("bytes that are written to it: found by the next look, and all is read again")
    func written() throws {
        let folder = Folder()
        let (keeper, path) = try node(folder, TestClock())
        let before = listing(keeper)
        let file = open(path, O_WRONLY)
        // Of the checksums, which nobody is served by.
        #expect(pwrite(file, [1, 2, 3, 4], 4, lseek(file, 0, SEEK_END) - 4) == 4)
        close(file)
        #expect(keeper.state?.mendTable(of: keeper.routing) != nil)
        #expect(listing(keeper) == before)
        unlink(path)
        try keeper.writeTable(withCompaction: false)
        try keeper.restart()
        #expect(keeper.routing.mappedRoutes > 500 && listing(keeper) == before)
    }

    @Test("a file that is taken away, or touched, is no loss: it is mapped")
    func touched() throws {
        let folder = Folder()
        let (keeper, path) = try node(folder, TestClock())
        utimes(path, nil)
        #expect(keeper.state?.mendTable(of: keeper.routing) == nil)
        unlink(path)
        #expect(keeper.state?.mendTable(of: keeper.routing) == nil)
        #expect(keeper.routing.mappedRoutes == 600)
    }
}
