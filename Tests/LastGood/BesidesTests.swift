import Pipeline
import PipelineRouting
import Testing

@testable import PipelineLastGood

@Suite("Records beside objects")
struct BesidesTests {
    @Test("what is written is read; what is cut, or of another length, is nothing")
    func records() throws {
        let address = try #require(IPAddress("fd00::1:2"))
        let endpoint = Endpoint(address, 8443)
        let lost = LostAddress(owner: "acme/shop/prod", at: 1_800_000_000_000_000_000)
        let drain = KeptDrain(end: 7, grace: .seconds(10))
        #expect(IPAddress(record: address.record) == address)
        endpoint.record.withUnsafeBufferPointer { #expect(Endpoint(record: $0) == endpoint) }
        lost.record.withUnsafeBytes { #expect(LostAddress(record: $0) == lost) }
        drain.record.withUnsafeBytes { #expect(KeptDrain(record: $0) == drain) }
        for count in 0..<18 {
            Array(endpoint.record.prefix(count)).withUnsafeBufferPointer { #expect(Endpoint(record: $0) == nil) }
        }
        for count in 0..<16 {
            #expect(IPAddress(record: address.record.prefix(count)) == nil)
            Array(drain.record.prefix(count)).withUnsafeBytes { #expect(KeptDrain(record: $0) == nil) }
        }
        for count in 0...8 {
            Array(lost.record.prefix(count)).withUnsafeBytes { #expect(LostAddress(record: $0) == nil) }
        }
        // No byte of them traps.
        for index in lost.record.indices {
            for byte in [0, 0x7F, 0x80, 0xFF] as [UInt8] {
                var bytes = lost.record
                bytes[index] = byte
                bytes.withUnsafeBytes { #expect(LostAddress(record: $0) != nil) }
            }
        }
    }

    @Test("a drain and a cooldown are there after a restart, also after an update that is a snapshot of its own")
    func restart() throws {
        let folder = Folder()
        let clock = TestClock()
        let keeper = try Keeper(folder.state) { clock.drive($0) }
        let instance = { (id: String, env: String, status: String, address: String) in
            "{\"instance_id\":\"\(id)\",\"env_id\":\"\(env)\",\"process_type\":\"web\",\"status\":\"\(status)\","
                + "\"overlay_ipv6\":\"\(address)\",\"drain_grace_seconds\":100}"
        }
        var world = World()
        for env in ["env_a", "env_b"] {
            world.set(.env, env, "{\"env_id\":\"\(env)\",\"app_id\":\"app\",\"org_id\":\"org\"}")
        }
        world.set(
            .route, "r",
            "{\"route_id\":\"r\",\"env_id\":\"env_a\",\"listen_port\":443,\"protocol_hint\":\"tcp_raw\","
                + "\"backend_process_type\":\"web\",\"backend_port\":80}")
        let tell = { (world: inout World) in
            world.revision += 1
            _ = try keeper.take(world.document)
            world.told()
        }
        world.set(.instance, "i1", instance("i1", "env_a", "ready", "fd00::1"))
        world.set(.instance, "i2", instance("i2", "env_a", "ready", "fd00::2"))
        try tell(&world)
        world.set(.instance, "i1", instance("i1", "env_a", "draining", "fd00::1"))
        world.set(.instance, "i2", nil)
        try tell(&world)
        clock.pass(30)
        // More than an entry of the log takes.
        for number in 0..<50_001 {
            world.set(
                .hostname, "n\(number).example.com", "{\"hostname\":\"n\(number).example.com\",\"env_id\":\"env_a\"}")
        }
        try tell(&world)
        try keeper.restart()
        #expect(keeper.routing.currentDrains.map(\.name) == ["[fd00::1]:80"])
        #expect(keeper.routing.currentDrains.first?.grace == .seconds(70))
        world.set(.instance, "i3", instance("i3", "env_b", "ready", "fd00::2"))
        try tell(&world)
        #expect(keeper.routing.cooling(10).named.map(\.left) == [.seconds(30)])
        clock.pass(30)
        let now = try #require(keeper.routing.clock?().monotonic)
        _ = keeper.state?.applyWaiting(to: keeper.routing, at: now)
        #expect(keeper.routing.cooling(10).count == 0 && keeper.routing.nextCooldown == nil)
        try keeper.restart()
        #expect(keeper.routing.cooling(10).count == 0)
        #expect(keeper.routing.currentDrains.first?.grace == .seconds(40))
    }
}
