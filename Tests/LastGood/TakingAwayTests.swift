import Pipeline
import PipelineState
import Testing

@testable import PipelineLastGood
@testable import PipelineRouting

/// R29: what waits behind a held update, of which what takes away is in force.
@Suite("What takes away takes effect before its update")
struct TakingAwayTests {
    private static let seed = HashSeed(1, 2)

    private static func read(_ text: String) throws -> StateUpdate {
        try #require(StateUpdate.read(copying: Array(text.utf8), as: .either).update)
    }

    private static func change(_ put: String, delete: String = "") -> String {
        "{\"format\":\"pipelined.change/1\",\"put\":{\(put)},\"delete\":{\(delete)}}"
    }

    private static func instance(_ id: String, _ status: String, _ more: String = "") -> String {
        "{\"instance_id\":\"\(id)\",\"env_id\":\"e\",\"process_type\":\"web\",\"overlay_ipv6\":\"fd00::1\"\(more),"
            + "\"status\" : \"\(status)\" }"
    }

    @Test("an object's text with another value: where it stood, or first; never in an object that has it twice")
    func setting() {
        for (text, expected) in [
            ("{}", "{\"status\":\"x\"}"), ("{ \"a\": 1 }", "{\"status\":\"x\", \"a\": 1 }"),
            (
                "{\"a\":{\"status\":1},\"status\" :\t\"ready\" , \"b\":2}",
                "{\"a\":{\"status\":1},\"status\" :\t\"x\" , \"b\":2}"
            ),
            ("{\"st\\u0061tus\":\"ready\"}", "{\"st\\u0061tus\":\"x\"}"),
            ("{\"status\":1,\"status\":2}", nil), ("{\"status\":1},{\"status\":2}", nil), ("[1]", nil),
            ("{\"a\":", nil),
            ("", nil),
        ] as [(String, String?)] {
            let found = Array(text.utf8).withUnsafeBytes {
                ObjectText.setting("status", to: "\"x\"", in: $0, seed: Self.seed)
            }
            #expect(found.map { String(decoding: $0, as: UTF8.self) } == expected, "\(text)")
        }
    }

    @Test("of an update: lost readiness, draining, suspensions; nothing that gives, and nothing else of the object")
    func texts() throws {
        let update = try Self.read(
            Self.change(
                "\"instances\":[\(Self.instance("gone", "failed")),\(Self.instance("drains", "draining", ",\"weight\":9")),"
                    + "\(Self.instance("ready", "ready", ",\"weight\":9")),\(Self.instance("new", "stopped")),"
                    + "\(Self.instance("known", "failed")),"
                    + "{\"instance_id\":\"bad\",\"env_id\":\"e\",\"status\":\"failed\"}],"
                    + "\"envs\":[{\"env_id\":\"e\",\"app_id\":\"b\",\"org_id\":\"p\",\"suspended\":true},"
                    + "{\"env_id\":\"f\",\"app_id\":\"a\",\"org_id\":\"o\",\"suspended\":false}],"
                    + "\"orgs\":[{\"org_id\":\"o\",\"suspended\":true},{\"org_id\":\"q\",\"suspended\":false}],"
                    + "\"routes\":[{\"route_id\":\"r\"}]", delete: "\"instances\":[\"deleted\"]"))
        let stored: [StateKind: [String: String]] = [
            .instance: [
                "gone": Self.instance("gone", "ready"), "drains": Self.instance("drains", "ready"),
                "ready": Self.instance("ready", "ready"), "known": Self.instance("known", "stopped"),
                "bad": Self.instance("bad", "ready"), "deleted": Self.instance("deleted", "ready"),
            ],
            .env: [
                "e": "{\"env_id\":\"e\",\"app_id\":\"a\",\"org_id\":\"o\"}",
                "f": "{\"env_id\":\"f\",\"app_id\":\"a\",\"org_id\":\"o\",\"suspended\":true}",
            ],
            .org: ["q": "{\"org_id\":\"q\",\"suspended\":true}"],
        ]
        let taking = TakingAway(of: update, seed: Self.seed)
        let texts = taking.texts(
            over: { stored[$0]?[String(decoding: $1, as: UTF8.self)].map { Array($0.utf8) } }, seed: Self.seed)
        let found = texts.mapValues { objects in
            Dictionary(
                uniqueKeysWithValues: objects.map {
                    (String(decoding: $0.key, as: UTF8.self), String(decoding: $0.value, as: UTF8.self))
                })
        }
        #expect(
            found == [
                .instance: ["gone": Self.instance("gone", "failed"), "drains": Self.instance("drains", "draining")],
                .env: ["e": "{\"suspended\":true,\"env_id\":\"e\",\"app_id\":\"a\",\"org_id\":\"o\"}"],
                .org: ["o": "{\"org_id\":\"o\",\"suspended\":true}"],
            ])
        let put = try #require(StateUpdate.putting(texts, actor: "me@\"x\"", request: "7", seed: Self.seed))
        var count = 0
        put.forEachPut { kind, id, text in
            count += 1
            #expect(found[kind]?[String(decoding: id, as: UTF8.self)] == String(decoding: text, as: UTF8.self))
        }
        #expect(count == 4 && put.revision == nil && put.actor == "me@\"x\"" && put.form == .change(base: nil))
    }

    @Test("an earlier update gives nothing of it back, also one that leaves an org out, or deletes it")
    func amending() throws {
        var taking = TakingAway(
            of: try Self.read(
                Self.change(
                    "\"instances\":[\(Self.instance("i", "draining"))],\"orgs\":[{\"org_id\":\"o\",\"suspended\":true}]"
                )),
            seed: Self.seed)
        taking.add(
            TakingAway(
                of: try Self.read(Self.change("\"instances\":[\(Self.instance("i", "failed"))]")), seed: Self.seed))
        for text in [
            "{\"format\":\"pipelined.state/1\",\"envs\":[],\"routes\":[],\"instances\":[\(Self.instance("i", "ready"))]}",
            Self.change("\"instances\":[\(Self.instance("i", "ready"))]", delete: "\"orgs\":[\"o\"],\"envs\":[\"x\"]"),
        ] {
            let amended = taking.amending(try Self.read(text), seed: Self.seed)
            var found: [String: String] = [:]
            amended.forEachPut { found[String(decoding: $1, as: UTF8.self)] = String(decoding: $2, as: UTF8.self) }
            #expect(found == ["i": Self.instance("i", "failed"), "o": "{\"org_id\":\"o\",\"suspended\":true}"])
            #expect(amended.deletes.allSatisfy { $0.kind == .env })
            Array("o".utf8).withUnsafeBufferPointer { #expect(amended.has(.org, $0)) }
        }
    }

    // MARK: Histories

    /// Ids that are few, so that updates meet.
    private static func step(_ world: inout World, _ random: inout SplitMix64) {
        for _ in 0...random.below(4) {
            let number = random.below(6)
            let ready = ["ready", "ready", "draining", "failed"][random.below(4)]
            let suspended = random.below(4) == 0
            switch random.below(4) {
            case 0:
                let text = instance("i\(number)", ready, ",\"weight\":\(random.below(3))")
                world.set(.instance, "i\(number)", random.below(5) == 0 ? nil : text)
            case 1:
                world.set(
                    .env, "e\(number % 3)",
                    "{\"env_id\":\"e\(number % 3)\",\"app_id\":\"a\",\"org_id\":\"o\",\"suspended\":\(suspended)}")
            case 2:
                world.set(
                    .org, "o",
                    random.below(3) == 0 ? nil : "{\"org_id\":\"o\",\"suspended\":\(suspended)}")
            default:
                let text =
                    "{\"route_id\":\"r\(number)\",\"env_id\":\"e\(number % 3)\",\"listen_port\":443,"
                    + "\"protocol_hint\":\"tls_passthrough\",\"hostname\":\"n\(number).example.com\","
                    + "\"backend_process_type\":\"web\",\"backend_port\":80}"
                world.set(.route, "r\(number)", random.below(3) == 0 ? nil : text)
            }
        }
        world.revision += 1
    }

    private static func texts(_ keeper: Keeper) -> [String] {
        var texts: [String] = []
        for kind in StateKind.allCases {
            _ = keeper.state?.desiredPage(kind, behind: nil, count: 100_000) {
                texts.append(String(decoding: $0, as: UTF8.self))
            }
        }
        return texts
    }

    @Test(
        "any history: what waits takes away and gives nothing, step by step; in the end all is as without a guard",
        arguments: 0..<40)
    func histories(_ number: Int) throws {
        var random = SplitMix64(seed: UInt64(number))
        let (folder, other) = (Folder(), Folder())
        let (held, plain) = (try Keeper(folder.state), try Keeper(other.state))
        var world = World()
        for _ in 0..<4 { Self.step(&world, &random) }
        for keeper in [held, plain] { try keeper.take(world.document) }
        world.told()
        var updates: [String] = []
        for _ in 0..<(2 + random.below(6)) {
            Self.step(&world, &random)
            updates.append(random.below(3) == 0 ? world.document : world.change)
            world.told()
        }
        for text in updates { try plain.take(text) }
        // The first is held; of the others what takes away is taken.
        let takings = try updates.map { TakingAway(of: try Self.read($0), seed: Self.seed) }
        for taking in takings.dropFirst() {
            let before = Self.unready(held)
            try take(taking, held)
            #expect(before.isSubset(of: Self.unready(held)))
        }
        for (index, text) in updates.enumerated() {
            var later = TakingAway()
            for taking in takings[(index + 1)...] { later.add(taking) }
            let state = try #require(held.state)
            let update = later.amending(try Self.read(text), seed: Self.seed)
            let prepared = try state.prepare(update, from: "push", UpdateOptions(isConfirmed: true), now: 1)
            try state.keep(prepared)
            _ = state.apply(prepared, to: held.routing)
            // What a later one takes away is not given back, not for a moment.
            #expect(later.texts(over: { state.text($0, $1) }, seed: Self.seed).isEmpty, "\(index)")
        }
        #expect(Self.texts(held) == Self.texts(plain))
        #expect(held.routing.suspended.envs == plain.routing.suspended.envs)
        #expect(held.routing.suspended.orgs == plain.routing.suspended.orgs)
        try held.restart()
        #expect(Self.texts(held) == Self.texts(plain))
    }

    private func take(_ taking: TakingAway, _ keeper: Keeper) throws {
        let state = try #require(keeper.state)
        let texts = taking.texts(over: { state.text($0, $1) }, seed: Self.seed)
        guard !texts.isEmpty else { return }
        let update = try #require(StateUpdate.putting(texts, actor: "", request: "", seed: Self.seed))
        let prepared = try state.prepare(update, from: "push", now: 1)
        try state.keep(prepared)
        _ = state.apply(prepared, to: keeper.routing)
        #expect(taking.texts(over: { state.text($0, $1) }, seed: Self.seed).isEmpty)
    }

    /// Who gets no connection.
    private static func unready(_ keeper: Keeper) -> Set<String> {
        Set(
            texts(keeper).filter {
                $0.contains("draining") || $0.contains("failed") || $0.contains("\"suspended\":true")
            }.compactMap {
                $0.split(separator: "_id\":\"").dropFirst().first?.split(separator: "\"").first.map(String.init)
            })
    }
}
