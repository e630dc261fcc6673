import Pipeline
import PipelineWire

/// The TLVs that are on or off.
struct ProxyV2TLVs: OptionSet, Sendable {
    let rawValue: UInt8
    /// The server name, if the client sent one.
    static let authority = ProxyV2TLVs(rawValue: 1)
    /// The client's ALPN protocol, if it offers exactly one.
    static let alpn = ProxyV2TLVs(rawValue: 2)
    static let uniqueID = ProxyV2TLVs(rawValue: 4)
    static let checksum = ProxyV2TLVs(rawValue: 8)
    /// What a trusted sender's header carried.
    static let passThrough = ProxyV2TLVs(rawValue: 16)

    init(rawValue: UInt8) { self.rawValue = rawValue }

    init?(word: String) {
        switch word {
        case "authority": self = .authority
        case "alpn": self = .alpn
        case "unique_id": self = .uniqueID
        case "crc32c": self = .checksum
        default: return nil
        }
    }
}

extension ProxyV2Filter {
    public static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        var settings = Settings(uniquePrefix: UniqueID.processPrefix)
        for clause in directive.clauses {
            switch (clause.name, clause.values.first) {
            case ("tlv", .word(let word)):
                guard let tlv = ProxyV2TLVs(word: word), settings.tlvs.insert(tlv).inserted else {
                    throw twice("tlv")
                }
            case ("ids", .word(let word)): try settings.setID(word, clause)
            case ("pass_through", _): settings.tlvs.insert(.passThrough)
            default: break
            }
        }
        let types = [settings.routeType, settings.envType, settings.orgType].compactMap(\.self)
        guard Set(types).count == types.count else {
            throw SettingsError(
                "two ids have the same TLV type", remedy: "give each its own type: `tlv env 0xE1`", clause: "ids")
        }
        return settings
    }

    fileprivate static func twice(_ clause: String) -> SettingsError {
        SettingsError("the same TLV twice", remedy: "name each TLV once", clause: clause)
    }
}

extension ProxyV2Filter.Settings {
    /// Ids without an explicit type use the first private types, in this order.
    fileprivate mutating func setID(_ word: String, _ clause: Clause) throws(SettingsError) {
        var given: UInt8?
        if clause.values.count == 2, case .count(let type) = clause.values[1] { given = UInt8(clamping: type) }
        switch word {
        case "route" where routeType == nil: routeType = given ?? ProxyTLV.Kind.custom
        case "env" where envType == nil: envType = given ?? ProxyTLV.Kind.custom + 1
        case "org" where orgType == nil: orgType = given ?? ProxyTLV.Kind.custom + 2
        default: throw ProxyV2Filter.twice(clause.name)
        }
    }
}
