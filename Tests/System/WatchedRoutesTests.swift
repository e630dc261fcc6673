import Foundation
import Glibc
import TestSupport
import Testing

@Suite("R22, R24: `routes file PATH watch`, with `state` and without")
struct WatchedRoutesTests {
    @Test(
        "a file that is written in place or renamed over is in force; status says what is watched",
        arguments: [true, false])
    func changes(keepsState: Bool) throws {
        let site = try WatchSite(keepsState: keepsState)
        try site.put("state.json", site.document(1, site.one))
        let node = try site.start("file state.json watch")
        #expect(try site.asks() == "1")
        let watch = try site.watch.unwrap("routes_watch")
        #expect(watch["path"] as? String == site.path("state.json") && watch["by"] as? String == "events", "\(watch)")
        #expect(watch["read_at"] is String && watch["problem"] is NSNull)
        try site.write("state.json", site.document(2, site.two))
        try site.awaitServed("2", "written in place")
        try site.put("state.json", site.document(3, site.one))
        try site.awaitServed("1", "renamed over")
        #expect(try site.status["revision"] as? Int == 3)
        // By the new file, too.
        try site.write("state.json", site.document(4, site.two))
        try site.awaitServed("2", "written in place again")
        try awaitUntil("each has its line") { node.child.lines.filter { $0.isEvent("routes_applied") }.count == 3 }
        try site.awaitFine()
        guard keepsState else { return }
        try awaitUntil("the journal has them") {
            let journal = try Binary.run(["audit", "--json", "--actor", "file", site.data]).out
            return journal.split(separator: "\n").filter { $0.contains("a document by watch") }.count == 3
        }
    }

    @Test(
        "links: one that is set anew, the `..data` of a Kubernetes volume, a directory above that is swapped",
        arguments: [true, false])
    func links(keepsState: Bool) throws {
        let site = try WatchSite(keepsState: keepsState)
        // As kubelet makes it: routes.json -> ..data/routes.json, ..data -> ..one.
        for (folder, server, revision) in [("..one", site.one, 1), ("..two", site.two, 2)] {
            try site.make("vol/\(folder)")
            try site.put("vol/\(folder)/routes.json", site.document(revision, server))
        }
        try site.link("vol/..data", to: "..one")
        try site.link("vol/routes.json", to: "..data/routes.json")
        try site.link("current", to: "vol")
        let node = try site.start("file current/routes.json watch")
        defer { withExtendedLifetime(node) {} }
        #expect(try site.asks() == "1")
        try site.link("vol/..data", to: "..two")
        try site.awaitServed("2", "..data is another")
        try site.remove("vol/..one")
        try site.make("vol/..three")
        try site.put("vol/..three/routes.json", site.document(3, site.one))
        try site.link("vol/..data", to: "..three")
        try site.awaitServed("1", "..data is a third")
        // The link above.
        try site.make("other")
        try site.put("other/routes.json", site.document(4, site.two))
        try site.link("current", to: "other")
        try site.awaitServed("2", "the directory's link is another")
        // A directory itself.
        try site.make("next")
        try site.put("next/routes.json", site.document(5, site.one))
        try site.move("other", to: "old")
        try site.move("next", to: "other")
        try site.awaitServed("1", "the directory was swapped")
        // What is left behind is not looked at.
        try site.put("old/routes.json", site.document(6, site.two))
        try site.write("other/routes.json", site.document(7, site.two))
        try site.awaitServed("2")
        #expect(try site.status["revision"] as? Int == 7)
    }

    @Test(
        "R24: half a document changes nothing, is said once, and is whole when it is closed", arguments: [true, false])
    func half(keepsState: Bool) throws {
        let site = try WatchSite(keepsState: keepsState)
        try site.put("state.json", site.document(1, site.one))
        let node = try site.start("file state.json watch")
        let text = Array(site.document(2, site.two).utf8)
        let file = open(site.path("state.json"), O_WRONLY | O_TRUNC)
        #expect(write(file, text, text.count / 2) == text.count / 2)
        // Nobody writes: it is read as it is.
        try node.waitForEvent("routes_refused")
        try site.awaitProblem("until it is whole")
        #expect(try site.asks() == "1")
        // The same again is not said again: what comes then is.
        #expect(pwrite(file, text, text.count / 2, 0) == text.count / 2)
        #expect(write(file, Array(text[(text.count / 2)...]), text.count - text.count / 2) > 0)
        close(file)
        try site.awaitServed("2")
        try site.awaitFine()
        #expect(node.child.lines.filter { $0.isEvent("routes_refused") }.count == 1)
        // A reload refuses it as well, and the watch goes on.
        try site.write("state.json", "{\"format\":")
        try site.awaitProblem("until it is whole")
        if !keepsState { #expect(try node.reload(site.config("file state.json watch")).isEvent("reload_refused")) }
        #expect(try site.asks() == "2")
        try site.put("state.json", site.document(3, site.one))
        try site.awaitServed("1")
        try site.awaitFine()
    }

    @Test(
        "what is no file, or away: routes go on, status says why, and its return is in force", arguments: [true, false])
    func away(keepsState: Bool) throws {
        let site = try WatchSite(keepsState: keepsState)
        try site.make("a/b")
        try site.put("a/b/state.json", site.document(1, site.one))
        let node = try site.start("file a/b/state.json watch")
        defer { withExtendedLifetime(node) {} }
        var (revision, isOne) = (1, true)
        func isBack(_ what: String) throws {
            revision += 1
            isOne.toggle()
            try site.put("a/b/state.json", site.document(revision, isOne ? site.one : site.two))
            try site.awaitServed(isOne ? "1" : "2", what)
            try site.awaitFine(what)
        }
        func isAway(_ part: String) throws {
            try site.awaitProblem(part)
            #expect(try site.asks() == (isOne ? "1" : "2"))
        }
        try site.remove("a/b/state.json")
        try isAway("no such file")
        try isBack("the file came back")
        try site.remove("a")
        try isAway("no such file")
        try site.make("a/b")
        try isBack("the directory came back")
        try site.remove("a/b/state.json")
        try site.make("a/b/state.json")
        try isAway("it is a directory")
        try site.remove("a/b/state.json")
        try isBack("it is no directory any more")
        try site.remove("a/b/state.json")
        #expect(mkfifo(site.path("a/b/state.json"), 0o600) == 0)
        try isAway("it is not a regular file")
        try isBack("it is no FIFO any more")
        try site.link("a/b/state.json", to: "state.json")
        try site.awaitProblem("can't read")
        try isBack("it is no link to itself any more")
    }

    @Test(
        "permission lost and given back", .enabled(if: geteuid() == 0 && Child.find("setpriv") != nil, "needs root"),
        arguments: [true, false])
    func permission(keepsState: Bool) throws {
        let site = try WatchSite(keepsState: keepsState)
        chmod(site.folder.path, 0o777)
        try site.put("state.json", site.document(1, site.one))
        chmod(site.path("state.json"), 0o644)
        let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        let node = try site.start("file state.json watch", launcher: user)
        defer { withExtendedLifetime(node) {} }
        #expect(try site.asks() == "1")
        chmod(site.path("state.json"), 0)
        try site.awaitProblem("no permission")
        #expect(try site.asks() == "1")
        try site.write("state.json", site.document(2, site.two))
        chmod(site.path("state.json"), 0o644)
        try site.awaitServed("2")
        try site.awaitFine()
    }

    @Test("a storm of writes: status answers meanwhile, and the last one is in force", arguments: [true, false])
    func storm(keepsState: Bool) throws {
        let site = try WatchSite(keepsState: keepsState)
        try site.put("state.json", site.document(1, site.one))
        let node = try site.start("file state.json watch")
        let (last, isOver) = (2000, Flag())
        let texts = (0...last).map { site.document($0, $0 % 2 == 0 ? site.two : site.one) }
        let path = site.path("state.json")
        let writer = concurrently {
            defer { isOver.set() }
            var pace = Pace(perSecond: 1000)
            for revision in 2...last {
                pace.wait()
                // Half of them in place.
                try texts[revision].write(toFile: path, atomically: revision % 4 < 2, encoding: .utf8)
            }
        }
        var asked = 0
        while !isOver.isSet {
            #expect(try site.status["pid"] as? Int == Int(node.child.pid))
            asked += 1
        }
        try writer.value()
        #expect(asked > 0)
        try awaitUntil("the last one is in force") { try site.status["revision"] as? Int == last }
        #expect(try site.asks() == "2")
        try site.awaitFine()
    }
}
