import Foundation
import TestSupport
import Testing

/// A site that has moved from HAProxy: each question is asked of both, in one run, with the same servers behind them.
@Suite("A site moved from HAProxy", .enabled(if: Child.find("haproxy") != nil && Child.find("nginx") != nil))
struct SiteQuestionsTests {
    /// One of the two that are asked.
    private struct Asked: Sendable {
        let name: String
        let entries: SiteEntries

        /// What the server said, in its words; `nobody` if none answered.
        func ask(_ host: String?, from source: String = "127.0.0.1", header: [UInt8] = []) throws -> String {
            try ask(header + clientHello(host), from: source)
        }

        func ask(_ bytes: [UInt8], at entry: Place? = nil, from source: String = "127.0.0.1") throws -> String {
            let client = try Socket.connect(to: entry ?? entries.tls, from: Place(source, 0))
            if !bytes.isEmpty { try? client.send(bytes) }
            let answer = try client.receiveToEnd().bytes
            return answer.isEmpty ? "nobody" : String(decoding: answer, as: UTF8.self)
        }

        /// How many of the answers came from whom.
        func count(_ hosts: [String]) throws -> String {
            let answers = try hosts.map { try ask($0).prefix { $0 != " " } }
            let counts = Dictionary(answers.map { ($0, 1) }, uniquingKeysWith: +)
            return counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
        }

        /// How many of `clients` are served while all of them stay.
        func served(_ clients: [(source: String, header: [UInt8])]) throws -> Int {
            let held = try clients.map { client in
                let socket = try Socket.connect(to: entries.tls, from: Place(client.source, 0))
                // It may be refused before it has said anything.
                try? socket.send(client.header + clientHello("mail.example.com"))
                let (bytes, _) = try socket.receiveToEnd()
                return (socket, bytes.isEmpty)
            }
            return held.count { !$0.1 }
        }
    }

    private struct Question: Sendable {
        let text: String
        let answer: String
        /// Where HAProxy answers otherwise, and FROM-HAPROXY.md says so.
        var haproxy: String?
        let ask: @Sendable (Asked) throws -> String
    }

    private static func v1(_ client: String) -> [UInt8] { Array("PROXY TCP4 \(client) 192.0.2.1 4000 443\r\n".utf8) }
    /// 203.0.113.9:1234 to 192.0.2.2:443.
    private static let v2 = bytes(hex: "0d0a0d0a000d0a515549540a2111000ccb007109c000020204d201bb") ?? []

    private static let names: [Question] = [
        Question(text: "a name of the map", answer: "post hello") {
            try $0.ask("lists.example.com").filter { !$0.isNumber }
        },
        Question(text: "in capital letters", answer: "web hello") {
            try $0.ask("WWW.Example.COM").filter { !$0.isNumber }
        },
        Question(text: "two labels under a suffix", answer: "intern hello") {
            try $0.ask("a.b.intern.example.com").filter { !$0.isNumber }
        },
        Question(text: "the suffix itself", answer: "intern hello") {
            try $0.ask("intern.example.com").filter { !$0.isNumber }
        },
        Question(text: "a name that nobody has", answer: "nobody") { try $0.ask("nobody.example.com") },
        Question(text: "a name that only ends like one", answer: "nobody") { try $0.ask("xexample.com") },
        Question(text: "a hello without a name", answer: "nobody") { try $0.ask(nil as String?) },
        Question(text: "HTTP where TLS is spoken", answer: "nobody") {
            try $0.ask(Array("GET / HTTP/1.0\r\n\r\n".utf8))
        },
        Question(text: "SSH where TLS is spoken", answer: "nobody") {
            try $0.ask(Array("SSH-2.0-OpenSSH_9.2\r\n".utf8))
        },
        Question(text: "a client that says nothing", answer: "nobody") { try $0.ask([]) },
    ]

    private static let turns: [Question] = [
        Question(text: "six connections over three servers", answer: "web1 2, web2 2, web3 2") {
            try $0.count(Array(repeating: "www.example.com", count: 6))
        },
        Question(text: "three names of one group take turns together", answer: "web1 1, web2 1, web3 1") {
            try $0.count(["blog.example.com", "news.example.com", "docs.example.com"])
        },
        Question(text: "one client stays with one server", answer: "1") {
            let shop = try $0.count(Array(repeating: "shop.example.com", count: 6))
            return "\(shop.split(separator: ",").count)"
        },
        Question(text: "TLS to the servers that speak it", answer: "media1 1, media2 1") { asked in
            let seen = try (0..<4).map { _ in
                try OpenSSL.connect(to: asked.entries.tls, name: "a.media.example.com", version: "tls1_3").output
            }
            return ["media1", "media2", "media3"].filter { name in seen.contains { $0.contains(name) } }
                .map { "\($0) 1" }.joined(separator: ", ")
        },
        Question(text: "HTTP 503 takes a server out", answer: "api2, api3") { asked in
            let seen = Set(try (0..<6).map { _ in try asked.ask("api.example.com").prefix(4) })
            return seen.sorted().joined(separator: ", ")
        },
        Question(text: "MySQL's server speaks first", answer: "mysql1") { try $0.ask([], at: $0.entries.raw) },
        Question(text: "SSH has its port", answer: "ssh1") { try $0.ask([], at: $0.entries.ssh) },
    ]

    private static let headers: [Question] = [
        Question(
            text: "PROXY out: the client and the name", answer: "shop of 127.0.0.1 pay.example.com",
            haproxy: "shop of 127.0.0.1"
        ) {
            String(try $0.ask("pay.example.com").replacing(/shop\d/, with: "shop"))
        },
        Question(
            text: "PROXY v1 in, v2 out", answer: "shop of 203.0.113.7 pay.example.com", haproxy: "shop of 203.0.113.7"
        ) {
            let answer = try $0.ask("pay.example.com", from: SiteConfigs.balancer, header: v1("203.0.113.7"))
            return String(answer.replacing(/shop\d/, with: "shop"))
        },
        Question(text: "PROXY v2 in, none out", answer: "post hello") {
            try $0.ask("mail.example.com", from: SiteConfigs.balancer, header: v2).filter { !$0.isNumber }
        },
        Question(text: "the balancer without a header", answer: "nobody") {
            try $0.ask("mail.example.com", from: SiteConfigs.balancer)
        },
        Question(text: "a stranger's header", answer: "nobody") { try $0.ask("mail.example.com", header: v2) },
        Question(text: "a source at its limit", answer: "\(SiteConfigs.concurrent)") {
            "\(try $0.served(Array(repeating: ("127.0.0.9", []), count: SiteConfigs.concurrent + 3)))"
        },
        Question(text: "the balancer's clients count one by one", answer: "\(SiteConfigs.concurrent + 3)") {
            "\(try $0.served((0..<SiteConfigs.concurrent + 3).map { (SiteConfigs.balancer, v1("203.0.113.\($0)")) }))"
        },
        Question(text: "one client behind the balancer at its limit", answer: "\(SiteConfigs.concurrent)") {
            let clients = Array(
                repeating: (SiteConfigs.balancer, v1("203.0.113.200")), count: SiteConfigs.concurrent + 3)
            return "\(try $0.served(clients))"
        },
    ]

    @Test("25 questions, asked of HAProxy and of this node: the same answers")
    func questions() throws {
        let site = try RunningSite()
        let api = try site.servers.groups["api"].unwrap("group")[0]
        api.becomeUnwell()
        try site.notice("api", api.name, api.place, isUp: false)
        try site.notice("media", "media3", site.servers.plain.place, isUp: false)
        let questions = Self.names + Self.turns + Self.headers
        #expect(questions.count == 25)
        for question in questions { try expectSame(question, of: site) }
    }

    @Test("servers that go and come back, a backup in between: the same answers at every step")
    func changes() throws {
        let site = try RunningSite()
        let web = try site.servers.groups["web"].unwrap("group")
        let six: @Sendable (Asked) throws -> String = { asked in
            try asked.count(Array(repeating: "www.example.com", count: 6))
        }
        try site.stop("web", web[0])
        try expectSame(Question(text: "one of three is down", answer: "web2 3, web3 3", ask: six), of: site)
        try site.stop("web", web[1])
        try site.stop("web", web[2])
        try expectSame(Question(text: "all three are down: the backup", answer: "spare 6", ask: six), of: site)
        try site.start("web", web[1])
        try expectSame(Question(text: "one is back", answer: "web2 6", ask: six), of: site)
        let mysql: @Sendable (Asked) throws -> String = { asked in try asked.ask([], at: asked.entries.raw) }
        try site.stop("mysql", site.servers.mysql[0])
        try expectSame(Question(text: "MySQL's second", answer: "mysql2", ask: mysql), of: site)
        try site.start("mysql", site.servers.mysql[0])
        try expectSame(Question(text: "MySQL's first again", answer: "mysql1", ask: mysql), of: site)
    }

    private func expectSame(_ question: Question, of site: RunningSite) throws {
        for (name, entries) in site.entries {
            let answer = try question.ask(Asked(name: name, entries: entries))
            let expected = name == "HAProxy" ? question.haproxy ?? question.answer : question.answer
            #expect(answer == expected, "\(name): \(question.text)")
        }
    }
}
