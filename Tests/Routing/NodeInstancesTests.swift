import Pipeline
import PipelineRouting
import Testing

/// R19: who has which address on this node.
@Suite("R19: the instances of this node") struct NodeInstancesTests {
    private func instance(
        _ id: String, _ overlay: String, ipv4: String? = nil, node: String? = "n1", env: String = "env_a",
        status: String = "ready"
    ) -> String {
        "{\"instance_id\":\"\(id)\",\"env_id\":\"\(env)\",\"process_type\":\"web\",\"overlay_ipv6\":\"\(overlay)\","
            + (node.map { "\"node_id\":\"\($0)\"," } ?? "") + (ipv4.map { "\"ipv4\":\($0)," } ?? "")
            + "\"status\":\"\(status)\"}"
    }

    private func state(_ name: String = "n1") -> RoutingState {
        let state = RoutingState()
        state.nodeName = name
        return state
    }

    private func owner(_ address: String, _ state: RoutingState) throws -> String? {
        let endpoint = try #require(Endpoint(address.contains(":") ? "[\(address)]:0" : "\(address):0"))
        return state.snapshot.instances.identity(of: endpoint.address).map {
            "\($0.pointee.org.string)/\($0.pointee.app.string)/\($0.pointee.env.string)/\($0.pointee.id.string)"
        }
    }

    @Test("only this node's, by both families, and only while they run") func mine() throws {
        let state = state()
        state.apply(
            instances: [
                instance("i_1", "fd00::1", ipv4: "\"10.0.0.1\""), instance("i_2", "fd00::2", ipv4: "null"),
                instance("i_3", "fd00::3", node: "n2"), instance("i_4", "fd00::4", node: nil),
                instance("i_5", "fd00::5", status: "booting"), instance("i_6", "fd00::6", status: "draining"),
                instance("i_7", "fd00::7", status: "stopped"), instance("i_8", "fd00::8", status: "failed"),
                instance("i_9", "fd00::9", env: "nobody"),
            ], [])
        #expect(try owner("fd00::1", state) == "org/app/env_a/i_1")
        #expect(try owner("10.0.0.1", state) == "org/app/env_a/i_1")
        #expect(try owner("fd00::2", state) == "org/app/env_a/i_2")
        #expect(try owner("fd00::5", state) != nil)
        #expect(try owner("fd00::6", state) != nil)
        for foreign in ["fd00::3", "fd00::4", "fd00::7", "fd00::8", "fd00::9", "10.0.0.2"] {
            #expect(try owner(foreign, state) == nil, "\(foreign)")
        }
    }

    @Test("a node without a name has none") func nameless() throws {
        let state = RoutingState()
        state.apply(instances: [instance("i_1", "fd00::1", node: nil), instance("i_2", "fd00::2")], [])
        #expect(try owner("fd00::2", state) == nil)
        #expect(try owner("fd00::1", state) == nil)
    }

    @Test("an address that two instances have is nobody's, and that is said") func shared() throws {
        let state = state()
        let (_, problems) = state.apply(
            instances: [
                instance("i_1", "fd00::1", ipv4: "\"10.0.0.1\""), instance("i_2", "fd00::1"),
                instance("i_3", "fd00::3", ipv4: "\"10.0.0.1\""),
            ], [])
        #expect(try owner("fd00::1", state) == nil)
        #expect(try owner("10.0.0.1", state) == nil)
        #expect(try owner("fd00::3", state) == "org/app/env_a/i_3")
        #expect(problems.contains { $0.severity == .warning && $0.field == "overlay_ipv6" && $0.id == "i_2" })
        #expect(problems.contains { $0.severity == .warning && $0.field == "ipv4" && $0.id == "i_3" })
    }

    @Test("R19: an instance whose env is not there is nobody, and so is whoever has its address") func strangers()
        throws
    {
        let state = state()
        let (one, two) = (instance("i_1", "fd00::1"), instance("i_2", "fd00::1", env: "env_b"))
        state.apply(envs: ["env_b"], instances: [one, two], [])
        #expect(try owner("fd00::1", state) == nil)
        // Also one that was known before.
        state.apply(envs: ["env_a", "env_b"], instances: [one], [])
        #expect(try owner("fd00::1", state) == "org/app/env_a/i_1")
        state.apply(envs: ["env_b"], instances: [one], [])
        #expect(try owner("fd00::1", state) == nil)
    }

    @Test("numbers stay: through applies, and for an old snapshot; nobody gets another's") func numbers() throws {
        let state = state()
        state.apply(instances: [instance("i_1", "fd00::1"), instance("i_2", "fd00::2")], [])
        let old = state.snapshot
        let address = { (low: UInt64) in IPAddress(high: 0xFD00 << 48, low: low) }
        let (one, two) = (old.instances.find(address(1)), old.instances.find(address(2)))
        #expect(one != nil && two != nil && one != two)
        // i_1 goes; another one takes its address; i_2 moves.
        state.apply(instances: [instance("i_2", "fd00::22"), instance("i_9", "fd00::1")], [])
        #expect(state.snapshot.instances.find(address(0x22)) == two)
        #expect(state.snapshot.instances.find(address(2)) == nil)
        let nine = state.snapshot.instances.find(address(1))
        #expect(nine != nil && nine != one && nine != two)
        #expect(old.instances.find(address(1)) == one)
        state.apply(instances: [instance("i_1", "fd00::1"), instance("i_2", "fd00::22")], [])
        #expect(state.snapshot.instances.find(address(1)) == one)
        // The same instance under another owner is another sender.
        state.apply(
            envs: ["env_a", "env_b"],
            instances: [instance("i_1", "fd00::1", env: "env_b"), instance("i_2", "fd00::22")], [])
        #expect(state.snapshot.instances.find(address(1)) != one)
    }

    @Test("R24: a bad ipv4 quarantines the instance, whose last good version stays") func quarantine() throws {
        let state = state()
        state.apply(instances: [instance("i_1", "fd00::1", ipv4: "\"10.0.0.1\"")], [])
        for bad in ["\"fd00::2\"", "\"10.0.0\"", "7", "\"0.0.0.0\""] {
            let (_, problems) = state.apply(instances: [instance("i_1", "fd00::1", ipv4: bad)], [])
            #expect(problems.contains { $0.severity == .rejected && $0.field == "ipv4" }, "\(bad)")
            #expect(try owner("10.0.0.1", state) == "org/app/env_a/i_1")
        }
    }

    @Test("R19: an `interface` binds the addresses of this node's instances that are not over")
    func interfaces() throws {
        func named(_ text: String, _ interface: String) -> String {
            text.replacing("\"status\"", with: "\"interface\":\"\(interface)\",\"status\"")
        }
        let text = documentText(
            instances: [
                named(instance("i_1", "fd00::1", ipv4: "\"10.0.0.1\""), "vm1"),
                named(instance("i_2", "fd00::2"), "name.of-15_byte"), instance("i_3", "fd00::3"),
                named(instance("i_4", "fd00::4", node: "n2"), "vm4"),
                named(instance("i_5", "fd00::5", status: "stopped"), "vm5"),
            ], routes: [])
        let document = try #require(StateDocument.parse(text).document)
        #expect(
            document.boundAddresses(node: "n1") == [
                BoundAddress(interface: "vm1", address: try #require(IPAddress("10.0.0.1"))),
                BoundAddress(interface: "vm1", address: try #require(IPAddress("fd00::1"))),
                BoundAddress(interface: "name.of-15_byte", address: try #require(IPAddress("fd00::2"))),
            ])
        #expect(document.boundAddresses(node: "").isEmpty)
    }

    @Test("R24: what can't be an interface's name quarantines the instance, by name, and no other")
    func badInterface() {
        for bad in [
            "\"\"", "\"sixteen-bytes-xx\"", "\"a/b\"", "\"a b\"", "\"a\\tb\"", "\"vm*\"", "\"a\\\"b\"", "\"a:b\"",
            "\".\"", "7", "\"\u{e9}\"",
        ] {
            let flawed = instance("i_1", "fd00::1")
                .replacing("\"status\"", with: "\"interface\":\(bad),\"status\"")
            let (document, problems) = StateDocument.parse(
                documentText(instances: [flawed, instance("i_2", "fd00::2")], routes: []))
            #expect(document?.instances.count == 1, "\(bad)")
            #expect(isRejected(problems.list, "i_1", "interface"), "\(bad): \(problems.list)")
        }
        let null = instance("i_1", "fd00::1").replacing("\"status\"", with: "\"interface\":null,\"status\"")
        #expect(StateDocument.parse(documentText(instances: [null], routes: [])).problems.list.isEmpty)
    }

    @Test("an apply that changes no instance shares the directory") func sharing() {
        let state = state()
        state.apply(instances: [instance("i_1", "fd00::1")], [])
        let before = state.snapshot.instances.identities.baseAddress
        state.apply(
            instances: [instance("i_1", "fd00::1")], [TestRoute(id: "r", env: "env_a", hostname: "a.example.com")])
        #expect(state.snapshot.instances.identities.baseAddress == before)
    }
}
