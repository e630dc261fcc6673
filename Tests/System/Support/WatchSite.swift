import Foundation
import Glibc
import TestSupport

/// A node whose routes file is watched: one raw route, to one of two servers.
struct WatchSite {
    let folder: TemporaryFolder
    let entry: Place
    let (one, two): (Server, Server)
    let keepsState: Bool
    var admin: String { folder.path + "/admin.sock" }
    var data: String { folder.path + "/data" }

    init(keepsState: Bool) throws {
        folder = try TemporaryFolder()
        entry = Place("::1", try FreePort.take())
        (one, two) = (try Server.saying("1"), try Server.saying("2"))
        self.keepsState = keepsState
    }

    func path(_ name: String) -> String { "\(folder.path)/\(name)" }

    func config(_ routes: String) -> String {
        let settings = ["admin unix:\(admin)", "drain_timeout 1s"] + (keepsState ? ["state \(data)"] : [])
        return ConfigText(settings: settings, rawListeners: [entry]).description + "\nroutes \(routes)\n"
    }

    func start(_ routes: String, launcher: [String] = []) throws -> Node {
        try Node(config(routes), folder: folder, launcher: launcher)
    }

    func document(_ revision: Int, _ server: Server?, more: String = "") -> String {
        let route = server.map {
            "{\"route_id\":\"r\",\"env_id\":\"e\",\"listen_port\":\(entry.port),\"protocol_hint\":\"tcp_raw\","
                + "\"backend_process_type\":\"w\",\"backend_port\":\($0.place.port)}"
        }
        return "{\"format\":\"pipelined.state/1\",\"revision\":\(revision),"
            + "\"envs\":[{\"env_id\":\"e\",\"app_id\":\"a\",\"org_id\":\"o\"}],"
            + "\"instances\":[{\"instance_id\":\"i\",\"env_id\":\"e\",\"process_type\":\"w\",\"overlay_ipv6\":\"::1\","
            + "\"status\":\"ready\"}],\"routes\":[\(route ?? "")\(more)]}"
    }

    /// In one step, as a rename does it.
    func put(_ name: String, _ text: String) throws {
        try write(name + ".tmp", text)
        try move(name + ".tmp", to: name)
    }

    /// Into the file that is there.
    func write(_ name: String, _ text: String) throws {
        try text.write(toFile: path(name), atomically: false, encoding: .utf8)
    }

    /// A link, in the place of what is there.
    func link(_ name: String, to target: String) throws {
        guard symlink(target, path(name + ".new")) == 0, rename(path(name + ".new"), path(name)) == 0 else {
            throw Failure(call: "symlink")
        }
    }

    func make(_ folder: String) throws {
        try FileManager.default.createDirectory(atPath: path(folder), withIntermediateDirectories: true)
    }

    func move(_ name: String, to other: String) throws {
        guard rename(path(name), path(other)) == 0 else { throw Failure(call: "rename") }
    }

    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: path(name)) }

    func asks() throws -> String {
        String(decoding: try Socket.connect(to: entry).receiveToEnd().bytes, as: UTF8.self)
    }

    func awaitServed(_ text: String, _ what: String = "") throws {
        try awaitUntil("it is served by \(text) \(what)") { try asks() == text }
    }

    var status: [String: Any] { get throws { try Admin.json(["status"], admin) } }
    var problems: [String] { get throws { try status["problems"] as? [String] ?? [] } }
    var watch: [String: Any]? { get throws { try status["routes_watch"] as? [String: Any] } }

    func awaitProblem(_ part: String) throws {
        try awaitUntil("status says: \(part)") {
            try problems.contains { $0.contains(part) } && watch?["problem"] is String
        }
    }

    func awaitFine(_ what: String = "") throws {
        try awaitUntil("nothing is wrong \(what)") { try problems.isEmpty && watch?["problem"] is NSNull }
    }
}
