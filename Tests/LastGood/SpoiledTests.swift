import Glibc
import Pipeline
import PipelineRouting
import TestSupport
import Testing

@testable import PipelineLastGood
@testable import PipelineState

/// A node whose files are damaged under way, and nothing on disk leads to what is in force.
@Suite("R23: what is in force outlives its files")
struct SpoiledTests {
    private static func instance(_ id: String, _ env: String, _ status: String, _ address: String) -> String {
        "{\"instance_id\":\"\(id)\",\"env_id\":\"\(env)\",\"process_type\":\"web\",\"status\":\"\(status)\","
            + "\"overlay_ipv6\":\"\(address)\",\"drain_grace_seconds\":100}"
    }

    private static func route(_ id: String, _ env: String) -> String {
        "{\"route_id\":\"\(id)\",\"env_id\":\"\(env)\",\"listen_port\":443,\"protocol_hint\":\"tls_passthrough\","
            + "\"hostname\":\"app.example.com\",\"backend_process_type\":\"web\",\"backend_port\":80}"
    }

    /// `env_a` has a name that `env_b` asks for too, and has lost an address; all of it is in a snapshot.
    private func fill(_ keeper: Keeper) throws -> World {
        var world = World()
        for env in ["env_a", "env_b"] {
            world.set(.env, env, "{\"env_id\":\"\(env)\",\"app_id\":\"app\",\"org_id\":\"org\"}")
        }
        world.set(.route, "r_a", Self.route("r_a", "env_a"))
        world.set(.instance, "i_a", Self.instance("i_a", "env_a", "ready", "fd00::1"))
        world.revision = 1
        try keeper.take(world.document)
        world.set(.route, "r_b", Self.route("r_b", "env_b"))
        world.set(.instance, "i_a", nil)
        world.revision = 2
        try keeper.take(world.document)
        world.told()
        let store = try #require(keeper.state?.store)
        let over = Promise<Bool>()
        try store.beginCompaction { over.fulfil(.success(true)) }
        #expect(try over.value())
        #expect(store.adoptCompaction()?.event == "state_compacted")
        return world
    }

    private func cutSnapshots(_ folder: Folder) {
        for number in 1...3 { truncate("\(folder.state)/snapshot.\(number)", 0) }
    }

    @Test("a change is refused, and says what helps; a whole document is taken, and owners and times are kept")
    func document() throws {
        let folder = Folder()
        let clock = TestClock()
        let keeper = try Keeper(folder.state) { clock.drive($0) }
        var world = try fill(keeper)
        let before = keeper.routing.owners
        cutSnapshots(folder)
        #expect(keeper.state?.lookAtFiles() != nil && keeper.state?.lookAtFiles() == nil)
        #expect(keeper.state?.spoiled != nil)
        world.revision = 3
        world.set(.instance, "i_b", Self.instance("i_b", "env_b", "ready", "fd00::1"))
        do throws(any Error) {
            try keeper.take(world.change)
            Issue.record("it is taken")
        } catch {
            let why = try #require(error as? UpdateRefusal).problem
            #expect(why.contains("only a whole document") && why.contains("begins with"), "\(why)")
        }
        try keeper.take(world.document)
        world.told()
        #expect(keeper.state?.spoiled == nil && keeper.routing.owners == before)
        #expect(keeper.routing.cooling(10).count == 1)
        world.revision = 4
        world.set(.instance, "i_c", Self.instance("i_c", "env_b", "ready", "fd00::2"))
        try keeper.take(world.change)
        try keeper.restart()
        #expect(keeper.routing.owners == before && keeper.state?.last?.revision == 4)
        #expect(keeper.routing.cooling(10).count == 1)
    }

    @Test("a document that would take away most is held then as well")
    func held() throws {
        let folder = Folder()
        let keeper = try Keeper(folder.state)
        _ = try fill(keeper)
        cutSnapshots(folder)
        #expect(keeper.state?.lookAtFiles() != nil)
        do throws(any Error) {
            try keeper.take(World().document, from: "push", UpdateOptions(allowsOlder: true))
            Issue.record("it is taken")
        } catch { #expect(try #require(error as? UpdateRefusal).isHeld) }
    }
}

extension RoutingState {
    /// Of names.
    fileprivate var owners: [String] {
        census.owners.compactMap { thing, owner -> String? in
            guard case .name(let name) = thing else { return nil }
            return "\(name) \(owner)"
        }.sorted()
    }
}
