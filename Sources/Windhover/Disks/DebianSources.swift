/// What of the host's package sources makes a Debian system: the release, its updates and its security updates.
struct DebianSources: Hashable {
    /// A release's name, such as `bookworm`.
    var release: String
    /// Lines in the form of sources.list.
    var lines: [String]

    /// What `apt-get indextargets` is to print of each list: a line of these fields.
    static let format = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)"
    /// With the package of this name in the guest, too.
    static let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

    /// nil where nothing is Debian's.
    /// - Parameter keyring: the file with the archive's keys; nil where the host has it elsewhere.
    init?(indexTargets text: String, keyring: String?) {
        struct Source: Hashable {
            var address: String
            var suite: String
        }
        var components: [Source: [String]] = [:]
        var order: [Source] = []
        var release: String?
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: "|", omittingEmptySubsequences: false).map(String.init)
            guard fields.count == 5, fields[0] == "Debian", fields[1...].allSatisfy({ Self.isWord($0) }) else { continue }
            let (codename, component) = (fields[3], fields[4])
            if release == nil, !codename.contains("-") { release = codename }
            let source = Source(address: fields[1], suite: fields[2])
            // A host with a second release in its sources installs from the first one.
            guard let release, codename == release || codename == release + "-updates" || codename == release + "-security" else {
                continue
            }
            if components[source] == nil { order.append(source) }
            if components[source]?.contains(component) != true { components[source, default: []].append(component) }
        }
        guard let release else { return nil }
        self.release = release
        let signed = keyring.map { "[signed-by=\($0)] " } ?? ""
        lines = order.map { "deb \(signed)\($0.address) \($0.suite) " + (components[$0] ?? []).joined(separator: " ") }
    }

    private static func isWord(_ text: String) -> Bool { !text.isEmpty && !text.contains(where: \.isWhitespace) }

    var usesTLS: Bool { lines.contains { $0.contains("https://") } }
}
