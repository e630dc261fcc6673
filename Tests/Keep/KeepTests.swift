import CLinux
import Pipeline
import TestSupport
import Testing

@testable import PipelineKeep

@Suite("What passes between a service and its manager")
struct KeepTests {
    @Test("names of descriptors that this process was started with: those for another process are not its own")
    func variables() {
        let read = { ListenVariables.read(process: $0, count: $1, names: $2, ourProcess: 7) }
        #expect(read("7", "2", "a:b") == ["a", "b"])
        #expect(read("7", "3", "a:") == ["a", "unknown", "unknown"])
        #expect(read("7", "1", nil) == ["unknown"])
        #expect(read("7", "1", "a:b:c") == ["a"])
        for (process, count) in [("8", "2"), ("", "2"), ("7", "0"), ("7", "-1"), ("7", ""), ("7", "x"), ("7x", "1")] {
            #expect(read(process, count, "a:b").isEmpty)
        }
        #expect(read(nil, "2", "a:b").isEmpty && read("7", nil, "a:b").isEmpty)
        #expect(read("7", "99999999999", nil).count == ListenVariables.most)
        #expect(read("7", "9999999999999999999999", nil).isEmpty)
    }

    @Test("a message: what the keeper does itself is not passed on, all else is")
    func message() {
        let store = NotifyMessage(Array("FDSTORE=1\nFDNAME=listener/[..].443/0\nFDPOLL=0".utf8))
        #expect(store.stores && !store.removes && store.name == "listener/[..].443/0" && store.rest.isEmpty)
        let remove = NotifyMessage(Array("FDSTOREREMOVE=1\nFDNAME=a".utf8))
        #expect(remove.removes && !remove.stores && remove.name == "a")
        let ready = NotifyMessage(Array("READY=1\nSTATUS=serving\nMAINPID=12".utf8))
        #expect(ready.isReady && ready.mainProcess == 12 && ready.rest == "READY=1\nSTATUS=serving")
        #expect(NotifyMessage(Array("STOPPING=1".utf8)).isStopping)
        for name in ["", "a:b", "ä", String(repeating: "a", count: 256), "a\tb"] {
            #expect(NotifyMessage(Array("FDSTORE=1\nFDNAME=\(name)".utf8)).name == NotifyMessage.unnamed)
        }
        for process in ["0", "1", "-5", "x", "99999999999"] {
            #expect(NotifyMessage(Array("MAINPID=\(process)".utf8)).mainProcess == nil)
        }
    }

    @Test("every prefix and many mutations of messages: nothing traps, nothing is passed on that should not be")
    func anyBytes() {
        let texts = [
            "FDSTORE=1\nFDNAME=listener/[..].443/0", "READY=1\nSTATUS=serving on 2 addresses\nMAINPID=17",
            "FDSTOREREMOVE=1\nFDNAME=x\n\n=\nA==", "RELOADING=1\nMONOTONIC_USEC=17\nSTOPPING=1",
        ].map { Array($0.utf8) }
        var random = SplitMix64(seed: 7)
        for text in texts {
            for end in 0...text.count { #expect(violation(Array(text.prefix(end))) == nil) }
            for _ in 0..<5000 {
                var bytes = text
                for _ in 0...Int(random.next() % 3) {
                    bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next())
                }
                if let violation = violation(bytes) {
                    Issue.record("\(violation): \(bytes)")
                    return
                }
            }
        }
    }

    @Test("a node that was ready is started again at once; one that never is, five times with longer and longer pauses")
    func policy() {
        var policy = RestartPolicy()
        // Whoever starts it reads what is wrong.
        #expect(policy.ended(life: nil, hasRefused: true) == .giveUp)
        policy = RestartPolicy()
        for _ in 0..<100 { #expect(policy.ended(life: .seconds(2), hasRefused: false) == .start(after: .zero)) }
        #expect(policy.ended(life: .milliseconds(5), hasRefused: false) == .start(after: .milliseconds(100)))
        let pauses = (0..<5).map { _ in policy.ended(life: nil, hasRefused: true) }
        #expect(pauses == [100, 200, 400, 800].map { .start(after: .milliseconds($0)) } + [.giveUp])
        policy = RestartPolicy()
        #expect(policy.ended(life: nil, hasRefused: false) == .start(after: .milliseconds(100)))
    }

    @Test("sockets are kept once, by name, until they are taken away or have ended")
    func sockets() throws {
        let listener = someSocket()
        let kept = KeptSockets([])
        kept.add(listener, "a")
        kept.add(cl_copy_descriptor(listener), "b")
        #expect(kept.names == "a" && kept.count == 1)
        kept.remove("b")
        #expect(kept.count == 1)
        kept.removeEnded()
        #expect(kept.count == 1)
        kept.remove("a")
        #expect(kept.count == 0)
    }

    private func violation(_ bytes: [UInt8]) -> String? { withExactBytes(bytes) { NotifyProperties.violation($0) } }

    private func someSocket() -> Int32 {
        var name = [CChar](repeating: 0, count: 17)
        return cl_notify_listen(&name)
    }
}

@Suite("the corpus of Notify")
struct NotifyCorpusTests {
    @Test("R32: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("Notify") { expect(input) }
    }

    @Test("R32: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Notify"), budget: 4000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { NotifyProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(violation ?? "")")
    }
}
