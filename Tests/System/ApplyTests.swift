import Foundation
import Glibc
import TestSupport
import Testing

@Suite("apply and state export, as commands")
struct ApplyTests {
    private static let state = """
        {"format": "pipelined.state/1", "revision": 1, "envs": [], "instances": [], "routes": []}
        """

    private func site(routesFile: Bool) throws -> (node: Node, admin: String, state: String) {
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let state = try folder.write("state.json", ApplyTests.state)
        let config = ConfigText(settings: ["admin unix:\(admin)"], tlsListeners: [Place("::1", try FreePort.take())])
        let routes = routesFile ? "\nroutes file \(state)\n" : ""
        return (try Node(config.description + routes, folder: folder), admin, state)
    }

    @Test(
        "a node whose routes come from files refuses a push and an export, and names the file",
        arguments: [true, false])
    func refused(routesFile: Bool) throws {
        let (node, admin, state) = try site(routesFile: routesFile)
        defer { withExtendedLifetime(node) {} }
        let source = routesFile ? state : "its config file, \(node.config)"
        let change = try TemporaryFolder()
        let large = try change.write(
            "large.json", ApplyTests.state + String(repeating: " ", count: 8_000_000))
        for words in [
            ["apply", state], ["apply", large], ["apply", "--confirm", "h1"], ["apply", "--discard", "h1"],
        ] {
            let pushed = try Binary.run(words + ["--admin", admin])
            #expect(pushed.exit == .code(1) && pushed.out.isEmpty)
            #expect(
                pushed.error.contains("the routes of this node come from \(source); change that file"),
                "\(pushed.error)")
        }
        let piped = try Binary.run(["apply", "-", "--json", "--admin", admin], input: ApplyTests.state)
        #expect(piped.exit == .code(1) && piped.out.contains("\"error\":\"the routes of this node come from"))
        let exported = try Binary.run(["state", "export", "--admin", admin])
        #expect(exported.exit == .code(1) && exported.out.isEmpty)
        #expect(exported.error.contains("keeps no desired state: its routes come from \(source)"), "\(exported.error)")
    }

    @Test(
        "another user may not push, whoever lets it connect; the kernel says who it is",
        .enabled(if: geteuid() == 0 && Child.find("setpriv") != nil))
    func anotherUser() throws {
        let (node, admin, state) = try site(routesFile: true)
        defer { withExtendedLifetime(node) {} }
        chmod(admin, 0o666)
        let user = "65534"
        let words = ["--reuid", user, "--regid", user, "--clear-groups", Binary.path]
        let pushed = try Binary.run(words + ["apply", state, "--admin", admin], by: "setpriv")
        #expect(pushed.exit == .code(1), "\(pushed)")
        #expect(pushed.error.contains("uid 65534 may read here, but not apply: that is for root"))
        let exported = try Binary.run(words + ["state", "export", "--admin", admin], by: "setpriv")
        #expect(exported.error.contains("keeps no desired state"), "\(exported)")
    }

    @Test("what is said of wrong usage, of a file that can't be read, and where nobody answers")
    func usage() throws {
        let folder = try TemporaryFolder()
        let (empty, nowhere) = (try folder.write("empty", ""), "\(folder.path)/none.sock")
        for words in [
            ["apply"], ["apply", empty, "--confirm", "h"], ["apply", "--older", "--confirm", "h"],
            ["apply", "--confirm", ""], ["apply", "--discard", ""], ["apply", "--confirm", "h", "--discard", "h"],
        ] {
            #expect(try Binary.run(words).exit == .code(2), "\(words)")
        }
        for (words, code, part) in [
            (["apply", empty], 1, "is empty"), (["apply", "\(folder.path)/none"], 1, "no such file"),
            (["apply", "--confirm", "h"], 3, "no such socket"), (["state", "export"], 3, "no such socket"),
        ] as [([String], Int32, String)] {
            let answer = try Binary.run(words + ["--admin", nowhere])
            #expect(answer.exit == .code(code) && answer.error.contains(part), "\(answer)")
        }
    }
}
