import Pipeline

/// The reference table of a block's settings for docs/LANGUAGE.md, generated from its descriptor.
///
/// - Parameter block: its keyword: `node`, `route`, `backends`, one of a filter's, or `listen` for what follows its
///   pipeline.
/// - Returns: Markdown, without a line break at the end; nil: there is no such block.
package func settingsTable(_ block: String, _ catalog: [any Filter.Type]) -> String? {
    if block == "listen" {
        return
            (tableHead
            + ListenerWords.settings.map { row($0.line, standard: $0.line.without, nil, marksRestarts: false) })
            .joined(separator: "\n")
    }
    let owned = catalog.blocks
    var descriptors = owned.filter { $0.keyword == block }
    if block == NodeBlock.descriptor.keyword {
        descriptors = [NodeBlock.descriptor] + owned.filter { if case .nodeLine = $0.shape { true } else { false } }
    }
    for one in [RouteSettings.route, RouteSettings.group] where one.keyword == block {
        let rows = one.lines.map { setting in
            let without = block == RouteSettings.group.keyword ? setting.withoutInGroup : setting.line.without
            return row(setting.line, standard: setting.line.missing == nil ? without : nil, nil, marksRestarts: false)
        }
        return (tableHead + rows).joined(separator: "\n")
    }
    guard !descriptors.isEmpty else { return nil }
    let hasRestarts = descriptors.contains { $0.lines.contains(where: \.needsRestart) }
    var rows = tableHead
    for descriptor in descriptors {
        for (line, value) in zip(descriptor.lines, descriptor.defaults) where line.isDocumented {
            rows.append(row(line, standard: line.without, value, marksRestarts: hasRestarts))
        }
    }
    return rows.joined(separator: "\n")
}

private let tableHead = ["| setting | default | range, meaning |", "| --- | --- | --- |"]

/// - Parameter standard: the default in words.
private func row(_ line: SettingLine, standard: String?, _ value: String?, marksRestarts: Bool) -> String {
    let forms = line.forms.map { form in
        "`\([line.keyword, form.form].filter { !$0.isEmpty }.joined(separator: " "))`".replacing("|", with: "\\|")
    }
    let standard = line.missing != nil ? "required" : standard ?? value.map { "`\($0)`" } ?? "none"
    var ranges: [String] = []
    for range in line.forms.flatMap(\.elements).compactMap(\.range) where !ranges.contains(range) {
        ranges.append(range)
    }
    var meaning = (ranges.isEmpty ? [] : [ranges.joined(separator: ", ")]) + [line.summary]
    if marksRestarts, line.needsRestart { meaning.append("kept until the next start") }
    return "| \(forms.joined(separator: " or ")) | \(standard) | \(meaning.joined(separator: "; ")) |"
}
