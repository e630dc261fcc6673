import Pipeline

/// A JSON object of scalars, as admin requests are: read by the same strict, bounded reader as desired state.
public struct FlatJSON: Sendable, Equatable {
    public enum Value: Sendable, Equatable {
        case string(String)
        case number(UInt64)
        case bool(Bool)
        /// Null, an array, an object, or a number that isn't a whole one of 0...2^64-1.
        case other
    }

    private let names: [String]
    private var values: [Value?]

    /// Reads one object and nothing after it. Unknown names are validated and skipped.
    /// - Parameter names: at most 64.
    /// - Throws: for bytes that are not JSON, or not an object.
    public static func read(_ bytes: [UInt8], names: [StaticString]) throws(JSONError) -> FlatJSON {
        let result = bytes.withUnsafeBufferPointer { bytes -> Result<FlatJSON, JSONError> in
            do throws(JSONError) { return .success(try read(bytes, names)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    private static func read(_ bytes: Bytes, _ names: [StaticString]) throws(JSONError) -> FlatJSON {
        var reader = JSONReader(bytes, seed: .random())
        var values = [Value?](repeating: nil, count: names.count)
        guard try reader.kind() == .object else { throw reader.expected("an object") }
        try reader.object(JSONKeys(names)) { reader, field throws(JSONError) in
            guard let field else { return try reader.skip() }
            values[field] = try value(&reader)
        }
        try reader.end()
        return FlatJSON(names: names.map { "\($0)" }, values: values)
    }

    private static func value(_ reader: inout JSONReader) throws(JSONError) -> Value {
        switch try reader.kind() {
        case .string: return .string(String(decoding: try reader.string(), as: UTF8.self))
        case .number: return try reader.number().map { .number($0) } ?? .other
        case .bool: return .bool(try reader.bool())
        case .null, .array, .object:
            try reader.skip()
            return .other
        }
    }

    /// Nil: it is not there.
    public subscript(_ name: String) -> Value? { names.firstIndex(of: name).flatMap { values[$0] } }

    /// The string of this name; nil if there is none.
    public func string(_ name: String) -> String? {
        if case .string(let text)? = self[name] { return text }
        return nil
    }
}
