import ArgumentParser
import Windhover

struct ImagesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "images",
        abstract: "Shows, fetches and removes cached images.",
        discussion: """
            Images are kept under $XDG_CACHE_HOME/windhover, or ~/.cache/windhover, and are used offline from then on.
            """,
        subcommands: [List.self, Fetch.self, Prune.self, Path.self],
        defaultSubcommand: List.self)

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list", abstract: "Lists what is cached, from where, and how large it is.")

        func run() throws {
            let store = try ImageStore()
            try StandardOutput.write(
                ImagesCommand.table(
                    store.list(), damaged: store.damaged(), total: store.size, directory: store.cacheDirectory))
        }
    }

    struct Fetch: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "fetch", abstract: "Fetches an image, or checks the one that is there.",
            discussion: "Comes from this host's package sources, verified, as any user.")

        @Argument(help: "The image: linux.")
        var name: String

        @Flag(help: "Fetch the newest one even where one is there.")
        var update = false

        func run() throws {
            guard ImageStore.names.contains(name) else { throw ImageError.unknown(name) }
            let store = try ImageStore()
            var anew = update
            if !update, store.image(name) != nil {
                let damaged = try store.verify(name)
                if damaged.isEmpty {
                    try StandardOutput.write("\(name) is here already, and every file is as it was stored\n")
                    return
                }
                Hover.complain("\(name) is damaged (\(damaged.joined(separator: ", "))) and is fetched anew")
                anew = true
            }
            let image = try fetch(name, into: store, update: anew)
            try StandardOutput.write("\(image.name) \(image.release) (\(image.version)), \(ByteCount.text(image.size))\n")
        }
    }

    struct Prune: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "prune", abstract: "Removes every cached image.")

        func run() throws {
            try StandardOutput.write("freed \(ByteCount.text(try ImageStore().prune()))\n")
        }
    }

    struct Path: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "path", abstract: "Prints where an image's files are, or where images are kept.")

        @Argument(help: "The image; without one, the cache's directory.")
        var name: String?

        func run() throws {
            let store = try ImageStore()
            guard let name else {
                try StandardOutput.write(store.cacheDirectory + "\n")
                return
            }
            guard ImageStore.names.contains(name) else { throw ImageError.unknown(name) }
            guard let files = store.locate(name) else { throw NotFetched(name: name) }
            let paths = [files.kernel, files.initrd, files.preparedKernel].compactMap(\.self)
            try StandardOutput.write(paths.joined(separator: "\n") + "\n")
        }
    }

    private struct NotFetched: ReportableError {
        let name: String
        var exitStatus: ExitStatus { .noSuchFile }
        var description: String { "\(name) is not fetched yet: hover images fetch \(name)" }
    }

    /// What `list` prints: columns, then the sum.
    static func table(_ images: [Image], damaged: [String] = [], total: UInt64, directory: String) -> String {
        guard !images.isEmpty || !damaged.isEmpty else {
            return "nothing is cached in \(directory); hover images fetch linux fetches Debian's kernel\n"
        }
        let rows =
            [["NAME", "KERNEL", "SIZE", "FROM"]]
            + images.map { [$0.name, $0.release, ByteCount.text($0.size), $0.origin] }
            + damaged.map { [$0, "damaged", "-", "hover images fetch \($0) mends it"] }
        let widths = (0..<3).map { column in (rows.map { $0[column].count }.max() ?? 0) + 2 }
        var text = ""
        for row in rows {
            for (column, width) in widths.enumerated() {
                text += row[column] + String(repeating: " ", count: width - row[column].count)
            }
            text += row[3] + "\n"
        }
        return text + "\n\(ByteCount.text(total)) in \(directory)\n"
    }
}
