import Pipeline
import PipelineSets

/// `geodb NAME file PATH`: prefixes, and the country that each is in.
final class GeoDatabase: ConfigBlock {
    let name: String
    /// The number of a country (``Country``) for each address; nil: there are more prefixes than a table can number.
    let table: PrefixTable?

    init(_ name: String, _ table: PrefixTable?) {
        self.name = name
        self.table = table
    }

    deinit { table?.deallocate() }

    static let block = BlockDescriptor(
        "geodb",
        BlockDescriptor.Members(
            "prefix and country", "prefixes and countries", contained: "prefix", mayStandInConfig: false),
        of: Members.self, "prefixes with the country that each is in, one `PREFIX COUNTRY` a line",
        use: { "write `geo by \($0), deny COUNTRY` in a pipeline" },
        shown: { block in ["\((block as? GeoDatabase)?.table?.byteCount ?? 0) bytes of memory"] })

    /// The lines of the file, on their way.
    struct Members: MemberList {
        private var prefixes: [UInt16: [Prefix]] = [:]
        private(set) var count = 0

        init(isDistinct: Bool) {}

        mutating func add(_ text: UnsafeBufferPointer<UInt8>) throws(ValueProblem) -> Bool {
            let words = String(decoding: text, as: UTF8.self).split(whereSeparator: { $0 == " " || $0 == "\t" })
            guard words.count == 2 else {
                throw ValueProblem(
                    message: "this is not a prefix with a country", expected: "a line like `192.0.2.0/24 DE`")
            }
            let prefix = try ConfigValue.prefix(String(words[0]))
            prefixes[try Country.number(String(words[1])), default: []].append(prefix)
            count += 1
            return true
        }

        func block(_ name: String) -> any ConfigBlock {
            GeoDatabase(name, PrefixTable(prefixes.map { (prefixes: $0.value, value: $0.key) }))
        }
    }
}

/// Two letters (ISO 3166-1) as a number below 676.
enum Country {
    static let letters = UInt16(26)

    static func number(_ text: String) throws(ValueProblem) -> UInt16 {
        let bytes = Array(text.utf8)
        let isLetter = { (byte: UInt8) in byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") }
        guard bytes.count == 2, bytes.allSatisfy(isLetter) else {
            throw ValueProblem(
                message: "\(quoted(text)) is no country", expected: "two capital letters like `DE` (ISO 3166-1)")
        }
        return UInt16(bytes[0] - UInt8(ascii: "A")) * letters + UInt16(bytes[1] - UInt8(ascii: "A"))
    }

    static func text(_ number: UInt16) -> String {
        let letter = { (index: UInt16) in
            Character(Unicode.Scalar(UInt8(ascii: "A") + UInt8(truncatingIfNeeded: index)))
        }
        return String([letter(number / letters), letter(number % letters)])
    }

    static let kind = ValueKind("COUNTRY", expected: "two capital letters like `DE` (ISO 3166-1)") {
        text throws(ValueProblem) in .count(UInt64(try number(text)))
    }
}
