extension String {
    /// The words with a space between them.
    ///
    /// Not `joined(separator:)`, for which the runtime looks through every conformance in the program: a tenth of a start.
    init(words: [String]) {
        self = ""
        for (index, word) in words.enumerated() {
            if index > 0 { self += " " }
            self += word
        }
    }
}
