import Foundation
import Pipeline
import PipelineRouting
import TestSupport
import Testing

/// What an update has, as text.
struct ReadUpdate {
    let update: StateUpdate?
    let problems: [String]
    /// `route r1 {…}`, in order.
    private(set) var puts: [String] = []
    private(set) var deletes: [String] = []

    init(_ text: String, as accepts: StateUpdate.Acceptance = .either, knows: Set<String> = StateWords.known) {
        self.init(Array(text.utf8), as: accepts, knows: knows)
    }

    init(_ bytes: [UInt8], as accepts: StateUpdate.Acceptance = .either, knows: Set<String> = StateWords.known) {
        let found: (puts: [String], deletes: [String], result: (StateUpdate?, RouteProblems))
        found = bytes.withUnsafeBufferPointer { bytes in
            let result = StateUpdate.read(bytes, as: accepts, knows: knows, seed: testSeed)
            var puts: [String] = []
            result.update?.forEachPut { kind, id, text in
                puts.append(
                    "\(kind) \(String(decoding: id, as: UTF8.self)) \(String(decoding: text, as: UTF8.self))")
            }
            let deletes = result.update?.deletes.map { "\($0.kind) \(String(decoding: $0.id, as: UTF8.self))" }
            return (puts, deletes ?? [], result)
        }
        (puts, deletes) = (found.puts, found.deletes)
        update = found.result.0
        problems = found.result.1.list.map(\.description)
    }
}

private func change(_ members: String) -> String { "{\"format\": \"pipelined.change/1\", \(members)}" }

@Suite("Documents and changes, split into objects")
struct UpdateTests {
    @Test("R22: a document is split into its objects, as they were written")
    func document() throws {
        let text = """
            {"format": "pipelined.state/1", "revision": 42, "actor": "deploy@acme", "request": "req-7",
             "routes": [{"route_id":"b", "x": [1, {"y": "}"}]}, {"env_id": 5, "route_id": "a"}],
             "envs": [{ "env_id" : "e1" }], "instances": [],
             "hostnames": [{"hostname": "Straße.example", "env_id": "e1"}, {"hostname":"*.B.example"}],
             "orgs": [{"org_id":"o"}]}
            """
        let read = ReadUpdate(text)
        let update = try #require(read.update)
        #expect(read.problems == [])
        #expect(
            read.puts == [
                "org o {\"org_id\":\"o\"}", "env e1 { \"env_id\" : \"e1\" }",
                "route a {\"env_id\": 5, \"route_id\": \"a\"}",
                "route b {\"route_id\":\"b\", \"x\": [1, {\"y\": \"}\"}]}",
                "hostname *.b.example {\"hostname\":\"*.B.example\"}",
                "hostname xn--strae-oqa.example {\"hostname\": \"Straße.example\", \"env_id\": \"e1\"}",
            ])
        #expect(update.form == .document && update.revision == 42)
        #expect(update.actor == "deploy@acme" && update.request == "req-7" && !update.isEmpty)
    }

    @Test("the examples of docs/STATE.md are read as what the page says that they are")
    func examples() throws {
        let page = Corpus.folder.deletingLastPathComponent().appendingPathComponent("docs/STATE.md")
        let blocks = try String(contentsOf: page, encoding: .utf8).split(separator: "```").filter {
            $0.hasPrefix("json")
        }
        let read = blocks.map { ReadUpdate(String($0.dropFirst(4))) }
        #expect(read.map(\.update?.form) == [.document, .change(base: 42)])
        #expect(read.allSatisfy { $0.problems == [] && !$0.puts.isEmpty })
        #expect(read.last?.deletes == ["instance i_1", "route rt_db", "hostname *.shop.example.com"])
    }

    @Test("R22: a change puts and deletes, and says what it stands on")
    func changes() throws {
        let read = ReadUpdate(
            change(
                """
                "revision": 43, "base": 42, "put": {"routes": [{"route_id": "r1"}], "envs": [{"env_id": "e"}]},
                "delete": {"hostnames": [".Bücher.example."], "routes": ["r3", "r2", "r3"], "instances": []}
                """))
        let update = try #require(read.update)
        #expect(read.problems == [])
        #expect(update.form == .change(base: 42) && update.revision == 43)
        #expect(read.puts == ["env e {\"env_id\": \"e\"}", "route r1 {\"route_id\": \"r1\"}"])
        #expect(read.deletes == ["route r2", "route r3", "hostname .xn--bcher-kva.example"])
        let other = try #require(ReadUpdate(change("\"put\": {}")).update)
        #expect(other.form == .change(base: nil) && other.revision == nil && other.isEmpty)
    }

    @Test("the format may stand anywhere, and escapes change no name")
    func anywhere() throws {
        let read = ReadUpdate(
            """
            {"delete": {"r\\u006futes": ["r\\u0031"]}, "a": ["\\ud800\\udc00"], "f\\u006frmat": "pipelined.change/1.2",
             "put": {"routes": [{"route\\u005fid": "r\\u0032"}]}}
            """)
        #expect(read.problems == [])
        #expect(read.deletes == ["route r1"])
        #expect(read.puts == ["route r2 {\"route\\u005fid\": \"r\\u0032\"}"])
    }

    @Test("R24: objects of one id stand together, and one with several ids under each, once")
    func twins() {
        let read = ReadUpdate(
            documentText(
                envObjects: ["{\"env_id\":\"e\",\"n\":1}", "{\"env_id\":\"e\",\"n\":2}", "{\"env_id\":\"e\",\"n\":1}"],
                routes: ["{\"route_id\":\"b\",\"route_id\":\"a\"}", "{\"route_id\":\"b\",\"route_id\":\"a\"}"],
                hostnames: ["{\"hostname\":\"A.example\"}", "{\"hostname\":\"a.example.\"}"]))
        #expect(
            read.puts == [
                "env e {\"env_id\":\"e\",\"n\":1},{\"env_id\":\"e\",\"n\":2},{\"env_id\":\"e\",\"n\":1}",
                "route a {\"route_id\":\"b\",\"route_id\":\"a\"}", "route b {\"route_id\":\"b\",\"route_id\":\"a\"}",
                "hostname a.example {\"hostname\":\"A.example\"},{\"hostname\":\"a.example.\"}",
            ])
        #expect(read.problems == [])
    }

    @Test(
        "R24: an object without an id that can be used is rejected where it stands, and no other is",
        arguments: [
            ("{}", "route, route_id: is missing"), ("{\"route_id\": 5}", "route, route_id: is a number"),
            ("{\"route_id\": null}", "route, route_id: is null"), ("{\"route_id\": \"\"}", "is empty"),
            ("{\"route_id\": \"a b\"}", "not visible ASCII"), ("{\"route_id\": \"\\ud800\"}", "not visible ASCII"),
            ("{\"route_id\": \"\(String(repeating: "x", count: 129))\"}", "has 129 bytes"),
            ("{\"route_id\": \"\(String(repeating: "x", count: 70000))\"}", "is longer than"),
            ("5", "route: is a number"), ("[{\"a\": 1, \"a\": 2}]", "route: is an array"),
        ])
    func nameless(object: String, part: String) {
        let good = "{\"route_id\": \"r\", \"x\": \"\\udc00\", \"x\": {\"y\": 1, \"y\": 2}}"
        let read = ReadUpdate(documentText(routes: [object, good]))
        #expect(read.problems.count == 1 && read.problems[0].hasPrefix("6:"), "\(read.problems)")
        #expect(read.problems.first?.contains(part) == true, "\(read.problems)")
        #expect(read.puts.last == "route r \(good)")
        #expect(read.update?.hasUnusable == true)
    }

    @Test("R27: an object that names itself a thousand times is kept four times at most")
    func manyIDs() {
        let ids = (0..<1000).map { "\"route_id\": \"r\($0)\"" }.joined(separator: ",")
        let read = ReadUpdate(documentText(envs: [], routes: ["{\(ids)}"]))
        #expect(read.puts.count == 4)
        #expect(read.puts.contains { $0.hasPrefix("route r999 ") })
    }

    @Test(
        "R22: what refuses a change as a whole",
        arguments: [
            ("\"put\": {\"routes\": [{\"route_id\": \"r1\"}]}, \"delete\": {\"routes\": [\"r1\"]}", "put and deleted"),
            (
                "\"put\": {\"hostnames\": [{\"hostname\": \"*.A.example\"}]}, \"delete\": {\"hostnames\": [\"*.a.example.\"]}",
                "hostname \"*.a.example\" is put and deleted"
            ),
            ("\"puts\": {}", "neither \"put\" nor \"delete\" is there"), ("\"put\": []", "\"put\" is an array"),
            ("\"delete\": null", "\"delete\" is null"), ("\"put\": {\"routes\": {}}", "\"routes\" is an object"),
            ("\"delete\": {\"routes\": \"r1\"}", "\"routes\" is a string"),
            ("\"base\": -1, \"put\": {}", "\"base\" is negative"),
            ("\"base\": \"x\", \"put\": {}", "\"base\" is a string"),
            ("\"revision\": 1.5, \"put\": {}", "not a whole number"),
            ("\"put\": {\"routes\": [], \"routes\": []}", "twice"), ("\"put\": {}, \"put\": {}", "twice"),
            ("\"put\": {}, \"x\": \"\\ud800\"", "escape"),
            ("\"needs\": [\"sealed\"], \"put\": {}", "needs \"sealed\""),
        ])
    func refusedChanges(members: String, part: String) {
        let read = ReadUpdate(change(members))
        #expect(read.update == nil && read.problems.count == 1, "\(read.problems)")
        #expect(read.problems.last?.contains(part) == true, "\(read.problems)")
    }

    @Test("R24: an id that can't be one is not deleted, and a kind that isn't known is passed over; both are said")
    func oddDeletes() {
        let read = ReadUpdate(
            change("\"delete\": {\"routes\": [5, \"r1\", {\"a\": 1, \"a\": 1}, \"\"], \"route\": [\"r2\"]}"))
        #expect(read.deletes == ["route r1"])
        #expect(read.problems.count == 4, "\(read.problems)")
        #expect(read.problems.last?.contains("\"delete\" has a list of no kind that this version knows") == true)
    }

    @Test("where a document is wanted a change is refused with the command that takes it, and the reverse")
    func formats() {
        let (document, change) = (documentText(routes: []), change("\"put\": {}"))
        for text in [change, change.replacing("change/1", with: "change/1.7")] {
            #expect(
                ReadUpdate(text, as: .document).problems.first?.contains("give the change to `pipelined apply`") == true
            )
            let (parsed, problems) = StateDocument.parse(text, seed: testSeed)
            #expect(parsed == nil && problems.list.first?.description.contains("`pipelined apply`") == true)
            #expect(ReadUpdate(text, as: .change).problems == [])
        }
        #expect(ReadUpdate(document, as: .document).problems == [])
        #expect(
            ReadUpdate(document, as: .change).problems.first?.contains("`pipelined apply`, which takes both") == true)
        let other = change.replacing("change/1", with: "change/2")
        let message = "write \"pipelined.state/1\" or \"pipelined.change/1\", or use a version"
        #expect(ReadUpdate(other).problems.first?.contains(message) == true)
        #expect(
            ReadUpdate("{\"put\": {}}", as: .change).problems.first?.contains("add \"format\": \"pipelined.change/1\"")
                == true)
    }

    @Test("`needs` names what a reader must know: one that does not know a word takes nothing")
    func needs() {
        for (needs, part) in [
            ("[\"priority\", \"nonsense\", \"sealed\"]", "it needs \"nonsense\", \"sealed\""),
            ("\"priority\"", "\"needs\" is a string"), ("[1]", "a word of \"needs\" is a number"),
            ("[\(Array(repeating: "\"weight\"", count: 65).joined(separator: ","))]", "\"needs\" has 65 words"),
        ] {
            for text in [
                documentText(routes: []).replacing("\"revision\"", with: "\"needs\": \(needs), \"revision\""),
                change("\"put\": {}, \"needs\": \(needs)"),
            ] {
                let read = ReadUpdate(text)
                #expect(
                    read.update == nil && read.problems.count == 1 && read.problems[0].contains(part),
                    "\(read.problems)")
            }
            let text = documentText(routes: []).replacing("\"revision\"", with: "\"needs\": \(needs), \"revision\"")
            let (document, problems) = StateDocument.parse(text, seed: testSeed)
            #expect(document == nil && problems.list.first?.description.contains(part) == true)
        }
        let known = ReadUpdate(change("\"put\": {}, \"needs\": [\"hostnames\", \"priority\"]"))
        #expect(known.update?.needs == ["hostnames", "priority"])
        #expect(ReadUpdate(change("\"put\": {}, \"needs\": null")).problems == [])
        #expect(ReadUpdate(change("\"put\": {}, \"needs\": [\"sealed\"]"), knows: ["sealed"]).problems == [])
        #expect(StateWords.known.isSuperset(of: ["suspended", "orgs", "org_id"]))
    }

    @Test("R27: an object may be as deep as a document's, and no deeper")
    func depth() {
        for (levels, isFine) in [(29, true), (30, false)] {
            let deep = String(repeating: "[", count: levels) + String(repeating: "]", count: levels)
            let text = documentText(routes: ["{\"route_id\": \"r\", \"x\": \(deep)}"])
            #expect((ReadUpdate(text).update != nil) == isFine)
            #expect((StateDocument.parse(text, seed: testSeed).document != nil) == isFine)
        }
    }

    @Test("R30: orgs, and what is suspended, are read: a fault quarantines the object that has it")
    func suspended() {
        let env = envObject("env_a").replacing("}", with: ", \"suspended\": true}")
        let text = documentText(envObjects: [env], routes: [], hostnames: [])
        let orgs = { (list: String) in text.replacing("\"orgs\": []", with: "\"orgs\": \(list)") }
        #expect(
            StateDocument.parse(orgs("[{\"org_id\": \"o\", \"suspended\": true}]"), seed: testSeed).problems.isEmpty)
        let faulty = orgs("[{\"org_id\": \"o\", \"suspended\": 1}, {\"suspended\": true}, 5]").replacing(
            "\"suspended\": true}]", with: "\"suspended\": \"yes\"}]")
        let (document, problems) = StateDocument.parse(faulty, seed: testSeed)
        #expect(document?.envs.count == 0)
        #expect(
            texts(problems.list).map { String($0.prefix { $0 != ";" }) } == [
                "rejected env env_a suspended: is a string", "rejected org - -: is a number",
                "rejected org - org_id: is missing",
                "rejected org o suspended: is a number",
            ])
        #expect(StateDocument.parse(orgs("{}"), seed: testSeed).document == nil)
    }

    @Test("a piece of an export ends anywhere; kinds in another order are refused")
    func export() {
        var export = StateExport(revision: nil, actor: "", needs: ["weight"])
        var text = export.take()
        func add(_ kind: StateKind, _ object: String) -> Bool {
            defer { text += export.take() }
            return Array(object.utf8).withUnsafeBytes { export.add(kind, $0) }
        }
        #expect(add(.instance, "{\"instance_id\":\"i1\"}"))
        #expect(add(.instance, "{\"instance_id\":\"i2\"},{\"instance_id\":\"i2\",\"a\":1}"))
        #expect(!add(.env, "{}") && !add(.org, "{}"))
        #expect(add(.hostname, "{\"hostname\":\"a.example\"}"))
        #expect(!add(.route, "{}"))
        export.end()
        #expect(export.count > 0)
        text += export.take()
        #expect(!add(.hostname, "{}"))
        #expect(
            String(decoding: text, as: UTF8.self) == """
                {"format": "pipelined.state/1", "needs": ["weight"],
                "envs": [],
                "instances": [
                {"instance_id":"i1"},
                {"instance_id":"i2"},{"instance_id":"i2","a":1}
                ],
                "routes": [],
                "hostnames": [
                {"hostname":"a.example"}
                ]}

                """)
        #expect(ReadUpdate(text).puts.count == 3)
    }
}
