import Foundation
import Glibc
import TestSupport
import Testing

/// Many push at once: their updates are made durable together (ADR 0112).
@Suite("R22, R23: groups of updates in a node")
struct GroupCommitTests {
    private struct Site: KeptSite {
        let folder: TemporaryFolder
        let entry: Place
        let server: Server
        var client: PushClient { PushClient(admin: admin) }

        init() throws {
            folder = try TemporaryFolder()
            entry = Place("::1", try FreePort.take())
            server = try Server.saying("1")
        }

        /// What is in force of what was pushed.
        func orgs() throws -> Set<String> {
            let exported = try Binary.run(["state", "export", "--admin", admin])
            let json = try JSONSerialization.jsonObject(with: Data(exported.out.utf8)) as? [String: Any]
            let list = try (json?["orgs"] as? [[String: Any]]).unwrap("orgs in \(exported)")
            return Set(list.compactMap { $0["org_id"] as? String })
        }
    }

    private static func org(_ id: String, _ more: String = "") -> String {
        "{\"format\":\"pipelined.change/1\",\(more)\"put\":{\"orgs\":[{\"org_id\":\"\(id)\",\"suspended\":false}]}}"
    }

    private static let pushers = 8

    /// What became of each push, by id, of those that push until `stop` or until nobody answers.
    private func pushing(_ client: PushClient, _ round: Int, _ stop: Flag) -> [Promise<[String: String]>] {
        (0..<Self.pushers).map { pusher in
            concurrently {
                var outcomes: [String: String] = [:]
                for number in 0... where !stop.isSet {
                    let id = "o-\(round)-\(pusher)-\(number)"
                    guard let answer = try client.push(Self.org(id)) else {
                        outcomes[id] = "none"
                        return outcomes
                    }
                    outcomes[id] = answer.outcome
                    if answer.outcome != "applied" { return outcomes }
                }
                return outcomes
            }
        }
    }

    private func outcomes(_ pushers: [Promise<[String: String]>]) throws -> [String: String] {
        try pushers.reduce(into: [:]) { all, one in all.merge(try one.value()) { $1 } }
    }

    @Test("killed while many push, it has all that it answered; asked to end, besides nothing that it refused")
    func ended() throws {
        let site = try Site()
        var node = try site.start()
        var answered: Set<String> = []
        for (round, signal) in [SIGKILL, SIGTERM, SIGKILL, SIGTERM, SIGKILL, SIGTERM].enumerated() {
            let pushers = pushing(site.client, round, Flag())
            try awaitUntil("pushes are answered") {
                let state = try? Admin.json(["status"], site.admin)["desired_state"] as? [String: Any]
                return (state?["orgs"] as? Int ?? 0) > answered.count + 20
            }
            node.child.signal(signal)
            _ = try node.child.waitForExit()
            let all = try outcomes(pushers)
            answered.formUnion(all.filter { $0.value == "applied" }.keys)
            node = try site.start()
            let there = try site.orgs()
            #expect(answered.isSubset(of: there), "lost: \(answered.subtracting(there))")
            for (id, outcome) in all where outcome == "refused" || outcome == "error" {
                #expect(!there.contains(id), "\(id) was refused")
            }
            answered = there
        }
        print("\(answered.count) pushes over six ends")
    }

    @Test("of those that push a change with one base, one has it, whoever comes when; a reload is in nobody's way")
    func races() throws {
        let site = try Site()
        let node = try site.start()
        #expect(try site.client.push(Self.org("first", "\"revision\":1,"))?.outcome == "applied")
        let last = 60
        let pushers = (0..<Self.pushers).map { pusher in
            concurrently { [client = site.client] in
                var (known, won) = (1, [Int]())
                while known < last {
                    let change = Self.org("o-\(pusher)-\(known)", "\"revision\":\(known + 1),\"base\":\(known),")
                    let answer = try client.push(change).unwrap("an answer")
                    if answer.outcome == "applied" { won.append(known + 1) }
                    guard answer.outcome == "applied" || answer.message.contains("stands on revision") else {
                        throw Failure("\(answer)")
                    }
                    known = try answer.revision.unwrap("a revision")
                }
                return won
            }
        }
        for _ in 0..<3 {
            let reloaded = try Binary.run(["reload", "--admin", site.admin])
            #expect(reloaded.exit == .code(0), "\(reloaded)")
            node.child.signal(SIGHUP)
        }
        let won = try pushers.flatMap { try $0.value() }.sorted()
        #expect(won == Array(2...last))
        #expect(try site.orgs().count == last)
        let state = try Admin.json(["status"], site.admin)["desired_state"] as? [String: Any]
        #expect(state?["revision"] as? Int == last)
        let journal = try Binary.run(["audit", "--outcome", "applied", "\(site.folder.path)/data"])
        #expect(journal.out.split(separator: "\n").count { $0.contains("a change by push") } == last, "\(journal)")
    }

    @Test("a stream: each change is answered in order on one connection, as it comes or all at once")
    func streams() throws {
        let site = try Site()
        let node = try site.start()
        defer { withExtendedLifetime(node) {} }
        let words = ["apply", "--stream", "-", "--json", "--admin", site.admin]
        let child = try Child(Binary.path, words)
        let change = { (revision: Int, base: Int) in
            Self.org("s-\(revision)", "\"revision\":\(revision),\"base\":\(base),") + "\n"
        }
        // The first stands on nothing.
        try child.write(Self.org("s-1", "\"revision\":1,"))
        var answers = try answers(child, 1)
        #expect(answers[0].outcome == "applied" && answers[0].revision == 1)
        // With and without a line break between them, and one that stands on what is not there.
        try child.write(change(2, 1) + change(4, 3) + change(3, 2).trimmingCharacters(in: .newlines) + change(4, 3))
        answers = try self.answers(child, 5)
        #expect(answers.map(\.outcome) == ["applied", "applied", "refused", "applied", "applied"])
        let last = 2000
        try child.write((5...last).map { change($0, $0 - 1) }.joined())
        answers = try self.answers(child, last + 1)
        #expect(answers.suffix(from: 5).map(\.revision) == (5...last).map { $0 })
        child.closeInput()
        #expect(try child.waitForExit() == .code(1))
        #expect(try site.orgs().count == last)
        let journal = try Binary.run(["audit", "--outcome", "applied", "\(site.folder.path)/data"])
        #expect(journal.out.split(separator: "\n").count { $0.contains("a change by push") } == last)
    }

    private func answers(_ child: Child, _ count: Int) throws -> [PushClient.Answer] {
        try child.wait("\(count) answers") { lines in
            let out = lines.filter { $0.stream == .out }
            return out.count >= count ? out : nil
        }.map { try PushClient.read(Data($0.text.utf8)) }
    }

    @Test("a stream that is no JSON, or ends within an object, says where; what came before it is in force")
    func broken() throws {
        let site = try Site()
        let node = try site.start()
        defer { withExtendedLifetime(node) {} }
        let ends = [("x", "is not the beginning of a JSON object"), ("{", "ends within an object")]
        for (number, (rest, part)) in ends.enumerated() {
            let answer = try Binary.run(
                ["apply", "--stream", "-", "--admin", site.admin], input: Self.org("b-\(number)") + rest)
            #expect(answer.exit == .code(1) && answer.error.contains(part), "\(answer)")
            #expect(answer.out.hasPrefix("applied: 1 objects"), "\(answer)")
            #expect(try site.orgs().count == number + 1)
        }
        let missing = try Binary.run(["apply", "--stream", "\(site.folder.path)/none", "--admin", site.admin])
        #expect(missing.exit == .code(1) && missing.error.contains("ENOENT"), "\(missing)")
        for words in [["apply", "--stream"], ["apply", "--stream", "--confirm", "h"]] {
            #expect(try Binary.run(words).exit == .code(2))
        }
    }
}
