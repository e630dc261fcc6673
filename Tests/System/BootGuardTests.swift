import Foundation
import Glibc
import TestSupport
import Testing

/// A node that is killed between the opening of its state and its readiness: it waits for an address that the kernel is
/// still asking about, and says so.
@Suite(
    "R29, the boot guard: what two starts in a row end with is set aside",
    .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct BootGuardTests {
    private let namespace: Namespace
    private let folder: TemporaryFolder
    private let (one, two): (Server, Server)
    private let port: UInt16
    /// Listened at; see ``hold()``.
    private let address: String
    private let routed: Place

    private var admin: String { folder.path + "/admin.sock" }
    private var data: String { folder.path + "/data" }
    private var file: String { folder.path + "/state.json" }

    init() throws {
        namespace = try Namespace()
        folder = try TemporaryFolder()
        (one, two) = (try Self.saying("1", namespace), try Self.saying("2", namespace))
        port = try FreePort.take()
        address = String(namespace.host.dropLast()) + "5"
        routed = Place(namespace.host, try FreePort.take())
        try namespace.ip("-6 addr add \(address)/64 dev eth0 nodad")
    }

    private static func saying(_ text: String, _ namespace: Namespace) throws -> Server {
        try Server(namespace.near) { socket in
            try socket.send(text)
            socket.finish()
        }
    }

    /// From here on a start waits, and does not come to its end.
    private func hold() throws {
        try Namespace.run(
            "ip", ["netns", "exec", namespace.name, "sysctl", "-qw", "net.ipv6.conf.eth0.dad_transmits=1000"])
        try namespace.ip("-6 addr del \(address)/64 dev eth0")
        try namespace.ip("-6 addr add \(address)/64 dev eth0")
    }

    private func letGo() throws {
        try namespace.ip("-6 addr del \(address)/64 dev eth0")
        try namespace.ip("-6 addr add \(address)/64 dev eth0 nodad")
    }

    private func config(_ routes: String) -> String {
        let config = ConfigText(
            settings: ["admin unix:\(admin)", "state \(data)", "drain_timeout 1s"],
            rawListeners: [Place(address, port), routed])
        return config.description + "\nroutes \(routes)\n"
    }

    private func start(_ routes: String = "push") throws -> Node {
        try Node(config(routes), folder: folder, in: namespace.name)
    }

    /// A start that is ended before it is ready.
    private func end(_ routes: String = "push", by signal: Int32 = SIGKILL) throws -> Child.Exit {
        let path = try folder.write("node.pipeline", config(routes))
        let child = try Child("ip", ["netns", "exec", namespace.name, Binary.path, "run", path])
        _ = try child.wait("that it waits for the address") { lines in lines.first { $0.isEvent("address_tentative") } }
        child.signal(signal)
        return try child.waitForExit()
    }

    private func document(_ revision: Int, _ server: Server) -> String {
        "{\"format\":\"pipelined.state/1\",\"revision\":\(revision),"
            + "\"envs\":[{\"env_id\":\"e\",\"app_id\":\"a\",\"org_id\":\"o\"}],"
            + "\"instances\":[{\"instance_id\":\"i\",\"env_id\":\"e\",\"process_type\":\"w\","
            + "\"overlay_ipv6\":\"\(server.place.host)\",\"status\":\"ready\",\"drain_grace_seconds\":\(revision)}],"
            + "\"routes\":[{\"route_id\":\"r\",\"env_id\":\"e\",\"listen_port\":\(routed.port),"
            + "\"protocol_hint\":\"tcp_raw\",\"backend_process_type\":\"w\",\"backend_port\":\(server.place.port)}]}"
    }

    private func apply(_ text: String, _ words: [String] = []) throws -> (exit: Child.Exit, out: String, error: String)
    {
        try Binary.run(["apply", "-", "--admin", admin] + words, input: text)
    }

    private func asks() throws -> String {
        String(decoding: try Socket.connect(to: routed).receiveToEnd().bytes, as: UTF8.self)
    }

    private func status() throws -> (state: [String: Any], problems: String) {
        let status = try Admin.json(["status"], admin)
        let state = try (status["desired_state"] as? [String: Any]).unwrap("desired_state")
        return (state, (status["problems"] as? [String] ?? []).joined(separator: "\n"))
    }

    @Test("two kills before ready: the third start serves the state before, says so, and goes on with a new push")
    func thirdStart() throws {
        var node = try start()
        #expect(try apply(document(1, one)).exit == .code(0))
        #expect(try apply(document(2, two)).exit == .code(0))
        #expect(try asks() == "2")
        try node.kill()
        // A node that was ready does not count.
        node = try start()
        try node.kill()
        try hold()
        for _ in 0..<2 { _ = try end() }
        try letGo()
        node = try start()
        #expect(
            node.child.lines.contains { $0.isEvent("state_rolled_back") && $0.text.contains("revision 2 from push") })
        #expect(try asks() == "1")
        let (state, problems) = try status()
        #expect(state["revision"] as? Int == 1 && state["set_aside"] as? String == "revision 2 from push", "\(state)")
        #expect(problems.contains("revision 2 from push is set aside") && problems.contains("revision 1 from push"))
        let journal = try Binary.run(["audit", "--outcome", "rolled_back", data])
        #expect(journal.out.contains("revision 2 from push is set aside"), "\(journal)")
        // The same again is held, another one goes on; and what goes on outlives the next start.
        let same = try apply(document(2, two))
        #expect(same.exit == .code(4) && same.out.contains("it is what was set aside"), "\(same)")
        #expect(try apply(document(3, two)).exit == .code(0))
        #expect(try status().state["set_aside"] is NSNull)
        try node.kill()
        node = try start()
        #expect(try asks() == "2" && (try status()).state["revision"] as? Int == 3)
        withExtendedLifetime(node) {}
    }

    @Test("with nothing before it the node serves nobody, can be asked, and takes a push")
    func nothingBefore() throws {
        var node = try start()
        #expect(try apply(document(1, one)).exit == .code(0))
        try node.kill()
        try hold()
        for _ in 0..<2 { _ = try end() }
        try letGo()
        node = try start()
        let (state, problems) = try status()
        #expect(state["routes"] as? Int == 0 && state["set_aside"] as? String == "revision 1 from push", "\(state)")
        #expect(problems.contains("in force is nothing"), "\(problems)")
        #expect(try asks() == "")
        // What stands on the state that is set aside would be a part of it alone.
        let part = "{\"format\":\"pipelined.change/1\",\"revision\":2,\"base\":1,\"delete\":{\"routes\":[\"x\"]}}"
        #expect(try apply(part).exit == .code(1))
        #expect(try apply(document(2, two)).exit == .code(0))
        #expect(try asks() == "2")
        withExtendedLifetime(node) {}
    }

    @Test("a file that is set aside is not taken again until it is changed, at a start or at a reload")
    func fileSource() throws {
        try document(1, one).write(toFile: file, atomically: true, encoding: .utf8)
        var node = try start("file state.json")
        try document(2, two).write(toFile: file, atomically: true, encoding: .utf8)
        try node.reload(revision: 2)
        try node.kill()
        try hold()
        for _ in 0..<2 { _ = try end("file state.json") }
        try letGo()
        for _ in 0..<2 {
            node = try start("file state.json")
            #expect(try asks() == "1")
            let (state, problems) = try status()
            #expect(state["revision"] as? Int == 1, "\(state)")
            #expect(problems.contains("it is what was set aside"), "\(problems)")
            let reload = try Binary.run(["reload", "--admin", admin])
            #expect(reload.exit == .code(1) && reload.out.contains("it is what was set aside"), "\(reload)")
            try node.kill()
        }
        node = try start("file state.json")
        try document(3, two).write(toFile: file, atomically: true, encoding: .utf8)
        try node.reload(revision: 3)
        #expect(try asks() == "2" && (try status()).state["set_aside"] is NSNull)
    }

    @Test("who ends in order does not count: an address that is not there, and a service manager's SIGTERM")
    func orderly() throws {
        var node = try start()
        #expect(try apply(document(1, one)).exit == .code(0))
        #expect(try apply(document(2, two)).exit == .code(0))
        try node.kill()
        try hold()
        // It gives up by itself, with exit code 1.
        for _ in 0..<2 { #expect(try end(by: SIGTERM) == .code(1)) }
        try namespace.ip("-6 addr del \(address)/64 dev eth0")
        let path = try folder.write("node.pipeline", config("push"))
        for _ in 0..<3 {
            let child = try Child("ip", ["netns", "exec", namespace.name, Binary.path, "run", path])
            #expect(try child.waitForExit() == .code(1))
        }
        // One that is killed is no two in a row with itself.
        try namespace.ip("-6 addr add \(address)/64 dev eth0")
        _ = try end()
        try letGo()
        node = try start()
        #expect(try asks() == "2" && (try status()).state["set_aside"] is NSNull)
        withExtendedLifetime(node) {}
    }
}
