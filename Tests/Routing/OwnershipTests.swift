import Pipeline
import PipelineRouting
import Testing

@Suite("R5: who owns a name is in the data")
struct OwnershipTests {
    let state = RoutingState()
    private let a = TestRoute(id: "ra", env: "env_a", hostname: "app.example.com")
    private let b = TestRoute(id: "rb", env: "env_b", hostname: "app.example.com", port: 8443)

    private func owner(_ name: String, _ port: UInt16 = 443, _ state: RoutingState? = nil) -> String? {
        (state ?? self.state).snapshot.named(name, port)?.pointee.owner.pointee.env.string
    }

    @Test("R5: at a start claims that clash are all left out, each naming the others; no order helps")
    func contested() {
        for routes in [[a, b], [b, a]] {
            let state = RoutingState()
            let problems = state.apply(routes, hostnames: []).problems
            #expect(state.snapshot.routeCount == 0)
            #expect(isRejected(problems, "ra", "org/app/env_a", "org/app/env_b", "\"rb\"", "hostnames"))
            #expect(isRejected(problems, "rb", "org/app/env_b", "org/app/env_a", "\"ra\""))
            #expect(problems.count == 2)
        }
    }

    @Test("R5: an entry decides, the lower number first, any number before none; the other is told both owners")
    func entries() {
        for (claims, winner) in [
            ([("env_a", 5), ("env_b", 3)], "env_b"), ([("env_a", 3), ("env_b", 5)], "env_a"),
            ([("env_a", nil), ("env_b", UInt64.max)], "env_b"), ([("env_a", 0), ("env_b", 1)], "env_a"),
            ([("env_b", nil)], "env_b"),
        ] as [([(String, UInt64?)], String)] {
            for entries in [claims, claims.reversed()] {
                let state = RoutingState()
                let texts = entries.map {
                    "{\"hostname\": \"App.Example.com.\", \"env_id\": \"\($0.0)\", \"claimed\": \($0.1.map(String.init) ?? "null")}"
                }
                let problems = state.applyText(
                    documentText(
                        envObjects: ["env_a", "env_b"].map { envObject($0) }, routes: [a.json, b.json], hostnames: texts
                    )
                ).problems
                #expect(state.served.values.map(\.env) == [winner], "\(claims)")
                let loser = winner == "env_a" ? "env_b" : "env_a"
                #expect(isRejected(problems, "r\(loser.suffix(1))", "org/app/env_a", "org/app/env_b"))
                let told = problems.contains { $0.object == .hostname && $0.id == "app.example.com" }
                #expect(told == (claims.count == 2))
            }
        }
    }

    @Test("R5: two entries of one rank give the name to nobody, unless one of them had it; a restart forgets")
    func sameRank() {
        for claimed in [nil, 4] {
            let both = [
                TestHostname("app.example.com", "env_a", claimed), TestHostname("app.example.com", "env_b", claimed),
            ]
            let state = RoutingState()
            let problems = state.apply([a, b], hostnames: both).problems
            #expect(state.served.isEmpty)
            #expect(isRejected(problems, "ra", "env_a", "env_b") && isRejected(problems, "rb", "env_a", "env_b"))
            #expect(problems.count { $0.object == .hostname && $0.severity == .rejected } == 2)
            // Nobody else gets it meanwhile: one of the two is the owner.
            let third = TestRoute(id: "rc", env: "env_c", hostname: "app.example.com", port: 9443)
            #expect(isRejected(state.apply([third], hostnames: both).problems, "rc", "env_a", "env_b"))
            let later = TestHostname("app.example.com", "env_c", claimed.map { $0 + 1 })
            if claimed != nil { #expect(isRejected(state.apply([third], hostnames: both + [later]).problems, "rc")) }
            state.apply([a], hostnames: [both[0]])
            #expect(owner("app.example.com", 443, state) == "env_a")
            state.apply([b, a], hostnames: both.reversed())
            #expect(owner("app.example.com", 443, state) == "env_a")
            #expect(owner("app.example.com", 8443, state) == nil)
        }
    }

    @Test("R5: an env that had a name by an entry keeps it against one of the same rank, though it had no route")
    func hadWithoutRoute() {
        let mine = TestHostname("app.example.com", "env_a")
        state.apply([], hostnames: [mine])
        state.apply([a, b], hostnames: [TestHostname("app.example.com", "env_b"), mine])
        #expect(state.served.keys.sorted() == ["ra"])
    }

    @Test("R5: who had a name is remembered when the table that had its routes is gone", arguments: [1, 2, 3, 9, 40])
    func rememberedNames(count: Int) {
        let names = (0..<count).map { "a\($0).example.com" }
        let entries = names.map { TestHostname($0, "env_a") }
        for _ in 0..<20 {
            let state = RoutingState()
            for port in [443, 8443] as [UInt16] {
                let routes = names.enumerated().map { TestRoute(id: "r\($0)", env: "env_a", hostname: $1, port: port) }
                state.apply(routes, hostnames: entries)
            }
            state.apply([], hostnames: entries)
            state.apply(
                names.enumerated().map { TestRoute(id: "r\($0)", env: "env_a", hostname: $1) },
                hostnames: entries + names.map { TestHostname($0, "env_b") })
            #expect(Set(state.served.values.compactMap(\.hostname)) == Set(names))
        }
    }

    @Test("R5: an old route edited to another env's name gets nothing, applied before or not")
    func edited() {
        let old = TestRoute(id: "ra", env: "env_b", hostname: "old.example.com")
        let entry = TestHostname("app.example.com", "env_a", 100)
        state.apply([old], hostnames: [])
        var stolen = old
        stolen.hostname = "app.example.com"
        let problems = state.apply([stolen], hostnames: [entry]).problems
        #expect(isRejected(problems, "ra", "org/app/env_a", "org/app/env_b"))
        #expect(owner("app.example.com") == nil)
        // R24: what it had stays, until somebody asks for that.
        #expect(owner("old.example.com") == "env_b")
        let next = TestRoute(id: "rn", env: "env_c", hostname: "old.example.com")
        #expect(isRejected(state.apply([stolen, next], hostnames: [entry]).problems, "ra"))
        #expect(owner("old.example.com") == "env_c")
        #expect(state.served.keys.sorted() == ["rn"])
        // An entry for somebody else takes it from whoever had it before.
        state.apply([next], hostnames: [TestHostname("old.example.com", "env_d", 1)])
        #expect(state.served.isEmpty)
    }

    @Test("R4: wildcards go by the same rule; what was rejected is in nobody's way")
    func wildcards() {
        let wildcard = TestRoute(id: "w", env: "env_b", hostname: "*.example.com")
        let below = TestRoute(id: "rc", env: "env_c", hostname: "c.example.com")
        // A's entry puts B's wildcard out; so C's name is fine.
        var problems = state.apply([wildcard, below, a], hostnames: [TestHostname("app.example.com", "env_a", 9)])
            .problems
        #expect(state.served.keys.sorted() == ["ra", "rc"])
        #expect(isRejected(problems, "w", "org/app/env_a", "org/app/env_b"))
        // The wildcard is earlier: it puts names out, with entry or without.
        let entries = [TestHostname("*.example.com", "env_b", 1), TestHostname("app.example.com", "env_a", 9)]
        let fresh = RoutingState()
        problems = fresh.apply([below, a, wildcard], hostnames: entries).problems
        #expect(fresh.served.keys.sorted() == ["w"])
        #expect(isRejected(problems, "ra", "env_b") && isRejected(problems, "rc", "wildcard", "env_b"))
        #expect(problems.contains { $0.object == .hostname && $0.id == "app.example.com" && $0.severity == .rejected })
        // It is so in the state that ran the other way round, too.
        #expect(texts(state.apply([below, a, wildcard], hostnames: entries).problems) == texts(problems))
        #expect(state.served == fresh.served)
        // Without a word from anywhere: all three, and whoever is under it.
        let start = RoutingState()
        problems = start.apply([wildcard, below, a], hostnames: []).problems
        #expect(start.served.isEmpty && problems.count == 3)
        #expect(isRejected(problems, "w", "\"ra\"", "\"rc\""))
    }

    @Test("R24: an entry that can't be read keeps its last good version; `claimed` is a whole number from 0, or null")
    func quarantined() {
        state.apply([a], hostnames: [TestHostname("app.example.com", "env_a", 5)])
        for bad in ["-1", "1.5", "\"7\"", "18446744073709551616", "true", "[]"] {
            let text = documentText(
                envObjects: ["env_a", "env_b"].map { envObject($0) }, routes: [b.json, a.json],
                hostnames: [
                    "{\"hostname\": \"app.example.com\", \"env_id\": \"env_a\", \"claimed\": \(bad)}",
                    TestHostname("app.example.com", "env_b", 6).json,
                ])
            let problems = state.applyText(text).problems
            #expect(isRejected(problems, "app.example.com", "claimed"), "\(bad)")
            #expect(owner("app.example.com") == "env_a" && owner("app.example.com", 8443) == nil, "\(bad)")
        }
        for (bad, field) in [
            ("{\"env_id\": \"env_a\"}", "hostname"), ("{\"hostname\": \"a..b\", \"env_id\": \"env_a\"}", "hostname"),
            ("{\"hostname\": \"*.shop.example\"}", "env_id"), ("{\"hostname\": 4, \"env_id\": \"env_a\"}", "hostname"),
        ] {
            let text = documentText(envObjects: [envObject("env_a")], routes: [a.json], hostnames: [bad, "7"])
            let (report, problems) = state.applyText(text)
            #expect(report != nil)
            #expect(
                problems.contains { $0.object == .hostname && $0.field == field && $0.severity == .rejected }, "\(bad)")
            #expect(problems.contains { $0.object == .hostname && $0.problem.contains("is a number") })
        }
        // Gone is gone.
        state.apply([b], hostnames: [])
        #expect(owner("app.example.com", 8443) == "env_b")
    }

    @Test("hostnames: nobody has to have it, an entry without route holds its name, one of no known env too")
    func without() {
        let problems = state.apply([b], hostnames: [TestHostname("app.example.com", "env_a", 1)]).problems
        #expect(isRejected(problems, "rb", "org/app/env_b", "env_a") && state.served.isEmpty)
        let unknown = state.apply([b], hostnames: [TestHostname("app.example.com", "env_z", 1)]).problems
        #expect(
            isRejected(unknown, "rb", "env_z") && unknown.contains { $0.severity == .warning && $0.object == .hostname }
        )
        #expect(state.apply([b]).problems.isEmpty)
        let text = documentText(envs: ["env_b"], routes: [b.json]).replacing(
            "\"routes\"", with: "\"hostnames\": {}, \"routes\"")
        #expect(state.applyText(text).report == nil)
    }

    @Test("R5: of two entries for one pair the lower number counts, wherever it stands")
    func twice() {
        let entries = [
            TestHostname("app.example.com", "env_a", 9), TestHostname("app.example.com", "env_b", 5),
            TestHostname("app.example.com", "env_a", 2),
        ]
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let state = RoutingState()
            let problems = state.apply([a, b], hostnames: order.map { entries[$0] }).problems
            #expect(state.served.keys.sorted() == ["ra"], "\(order)")
            #expect(problems.contains { $0.severity == .warning && $0.problem.contains("twice") })
        }
    }

    @Test("R2: a raw route keeps its name, is never found by it, and owns it like any other")
    func rawNames() throws {
        let raw = TestRoute(id: "raw", env: "env_a", hostname: "app.example.com", port: 5432, raw: true)
        let more = TestRoute(id: "raw2", env: "env_a", hostname: "app.example.com", port: 5433, raw: true)
        #expect(state.apply([raw, more, a], hostnames: []).problems.isEmpty)
        #expect(state.snapshot.named("app.example.com")?.pointee.id.string == "ra")
        #expect(state.snapshot.named("app.example.com", 5432) == nil)
        #expect(state.snapshot.sole(5432)?.pointee.id.string == "raw")
        #expect(
            state.snapshot.listing().filter { $0.hint == .tcpRaw }.map(\.hostname) == [
                "app.example.com", "app.example.com",
            ])
        let other = TestRoute(id: "other", env: "env_b", hostname: "app.example.com", port: 5434, raw: true)
        let over = TestRoute(id: "over", env: "env_c", hostname: "*.example.com", port: 5435, raw: true)
        let problems = state.apply([raw, more, a, other, over], hostnames: []).problems
        #expect(isRejected(problems, "other", "org/app/env_a", "org/app/env_b"))
        #expect(isRejected(problems, "over", "org/app/env_a", "org/app/env_c"))
        let fresh = RoutingState()
        fresh.apply([other, raw], hostnames: [])
        #expect(fresh.served.isEmpty)
        fresh.apply([other, raw], hostnames: [TestHostname("app.example.com", "env_b", 1)])
        #expect(fresh.served.keys.sorted() == ["other"])
        // A thousand of one name cost what a thousand cost.
        let many = (0..<2000).map {
            TestRoute(id: "m\($0)", env: "env_a", hostname: "many.example.com", port: UInt16(20_000 + $0), raw: true)
        }
        #expect(state.apply(many, hostnames: []).problems.isEmpty && state.snapshot.routeCount == 2000)
    }

    @Test("R8: two envs at a raw port: who had it keeps it, else neither; within one env the lower id, in any order")
    func rawPorts() {
        let x = TestRoute(id: "x", env: "env_a", port: 5432, raw: true)
        let y = TestRoute(id: "y", env: "env_b", port: 5432, raw: true)
        let low = TestRoute(id: "l", env: "env_a", port: 5432, raw: true)
        let byName = TestRoute(id: "n", env: "env_b", hostname: "n.example.com", port: 5432)
        for routes in [[x, y], [y, x], [x, byName], [byName, x]] {
            let state = RoutingState()
            let problems = state.apply(routes, hostnames: []).problems
            #expect(state.served.isEmpty && problems.count == 2)
            #expect(problems.allSatisfy { $0.description.contains("env_a") && $0.description.contains("env_b") })
            state.apply([routes[0]], hostnames: [])
            #expect(isRejected(state.apply(routes.reversed(), hostnames: []).problems, routes[1].id, "env_a", "env_b"))
            #expect(state.snapshot.sole(5432)?.pointee.id.string == routes[0].id)
        }
        for routes in [[x, low], [low, x]] {
            for before in [[], [x], [low]] {
                let state = RoutingState()
                state.apply(before, hostnames: [])
                #expect(isRejected(state.apply(routes, hostnames: []).problems, "x", "\"l\""))
                #expect(state.snapshot.sole(5432)?.pointee.id.string == "l")
            }
        }
        // What is rejected for its name leaves its port to the next.
        var named = low
        named.hostname = "app.example.com"
        let problems = state.apply([named, x], hostnames: [TestHostname("app.example.com", "env_c", 1)]).problems
        #expect(isRejected(problems, "l", "env_c") && state.snapshot.sole(5432)?.pointee.id.string == "x")
    }
}
