import Pipeline
import Testing

/// `source` of a config: its words, and the addresses that take turns.
@Suite("Source addresses")
struct SourceAddressesTests {
    private func read(_ words: String) throws(ValueProblem) -> SourceSpec {
        var ranges: [AddressRange] = []
        for word in words.split(separator: " ") { ranges.append(try ConfigValue.sourceRange(String(word))) }
        return try SourceSpec.of(ranges)
    }

    @Test(
        "addresses, prefixes and ranges; what is printed reads as the same",
        arguments: [
            ("192.0.2.10", 1, "192.0.2.10"), ("192.0.2.0/28", 16, "192.0.2.0/28"),
            ("192.0.2.10-192.0.2.20", 11, "192.0.2.10-192.0.2.20"), ("192.0.2.16-192.0.2.31", 16, "192.0.2.16/28"),
            ("2001:db8::1 2001:db8::4/126 10.0.0.1", 6, "2001:db8::1 2001:db8::4/126 10.0.0.1"),
            ("2001:db8::1-2001:db8::2", 2, "2001:db8::1-2001:db8::2"), ("10.0.0.0/20", 4096, "10.0.0.0/20"),
            ("0.0.0.1-0.0.0.1", 0, ""), ("127.0.0.1", 1, "127.0.0.1"),
        ])
    func words(text: String, count: Int, printed: String) throws {
        guard count > 0 else {
            #expect(throws: ValueProblem.self) { try read(text) }
            return
        }
        let spec = try read(text)
        #expect(spec.configText == printed)
        #expect(try read(printed).addresses(isIPv4: true) == spec.addresses(isIPv4: true))
        #expect(spec.addresses(isIPv4: true).count + spec.addresses(isIPv4: false).count == count)
    }

    @Test(
        "what is none says why, and what to write",
        arguments: [
            ("localhost", "is not an address", nil), ("192.0.2.1:80", "is not an address", "write `192.0.2.1`"),
            ("[2001:db8::1]:0", "is not an address", "write `2001:db8::1`"),
            ("[2001:db8::1]", "is not an address", "write `2001:db8::1`"),
            ("192.0.2.20-192.0.2.10", "is reversed", "write `192.0.2.10-192.0.2.20`"),
            ("192.0.2.1-2001:db8::1", "is of two address families", "write a range for each"),
            ("10.0.0.0/19", "has more than 4096 addresses", "smaller prefix"),
            ("2001:db8::/64", "has more than 4096 addresses", "smaller prefix"),
            ("2001:db8::-2001:db9::", "has more than 4096 addresses", "smaller prefix"),
            ("192.0.2.1/24", "has bits set beyond its length", "write `192.0.2.0/24`"),
            ("0.0.0.0", "nothing can be sent from 0.0.0.0", "ip addr"),
            ("::", "nothing can be sent from ::", "ip addr"),
            ("224.0.0.1", "nothing can be sent from", "ip addr"),
            ("223.255.255.250-224.0.0.3", "nothing can be sent from 224.0.0.3", "ip addr"),
            ("255.255.255.255", "nothing can be sent from", "ip addr"),
            ("fe80::1", "nothing can be sent from", "ip addr"),
            ("ff02::1", "nothing can be sent from", "ip addr"),
        ] as [(String, String, String?)])
    func problems(text: String, problem: String, help: String?) {
        #expect {
            try read(text)
        } throws: { error in
            guard let error = error as? ValueProblem else { return false }
            return error.message.contains(problem) && (help == nil || error.help?.contains(help ?? "") == true)
        }
    }

    @Test("every prefix and every changed byte of such words: read or refused, and what is read prints as the same")
    func hostile() throws {
        let seeds = [
            "192.0.2.10-192.0.2.20", "2001:db8::4/126", "10.0.0.0/20", "fd00::-fd00::fff", "[::1]:80", "::ffff:1.2.3.4",
        ]
        var read = 0
        for seed in seeds.map({ Array($0.utf8) }) {
            var words = seed.indices.map { Array(seed[..<$0]) } + [seed]
            for index in seed.indices {
                for byte in UInt8.min...(.max) {
                    var changed = seed
                    changed[index] = byte
                    words.append(changed)
                }
            }
            for word in words {
                guard let range = try? ConfigValue.sourceRange(String(decoding: word, as: UTF8.self)) else { continue }
                read += 1
                #expect((1...SourceSpec.limit).contains(range.count) && range.all.count == range.count)
                #expect(try ConfigValue.sourceRange(range.description) == range)
            }
        }
        #expect(read > 300)
    }

    @Test("an address twice, by whatever words, and more than 4,096 together")
    func together() {
        for text in ["10.0.0.1 10.0.0.1", "10.0.0.0/24 10.0.0.7", "10.0.0.1-10.0.0.9 10.0.0.9-10.0.0.12"] {
            #expect {
                try read(text)
            } throws: {
                ($0 as? ValueProblem)?.message.contains("twice") == true
            }
        }
        #expect {
            try read("10.0.0.0/20 10.1.0.0")
        } throws: {
            ($0 as? ValueProblem)?.message.contains("more than 4096") == true
        }
    }

    @Test("S24: every address of every source has a number of its own")
    func numbers() throws {
        let spec = try read("10.0.0.1 10.0.0.2 2001:db8::1")
        var seen: Set<UInt32> = []
        for _ in 0..<3 {
            let source = SourceAddresses.make(spec)
            defer { SourceAddresses.free(source) }
            for isIPv4 in [true, false] {
                for place in 0..<source.pointee.count(isIPv4: isIPv4) {
                    seen.insert(source.pointee.address(place, isIPv4: isIPv4).number)
                }
            }
        }
        #expect(seen.count == 9 && !seen.contains(0))
    }

    @Test("the addresses of a family take turns among themselves")
    func turns() throws {
        let source = SourceAddresses.make(try read("10.0.0.1 10.0.0.2 10.0.0.3 2001:db8::1 2001:db8::2"))
        defer { SourceAddresses.free(source) }
        var places: [Int] = []
        for _ in 0..<6 {
            places.append(source.pointee.nextTurn(isIPv4: true))
            _ = source.pointee.nextTurn(isIPv4: false)
        }
        #expect(places == [0, 1, 2, 0, 1, 2])
    }
}
