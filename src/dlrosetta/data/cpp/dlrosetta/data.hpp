// The data sets of the texts for C++ versions: what `dlrosetta.data` is for Python, number for number.
//
// Reading never downloads (`rosetta run` and `rosetta compare` do). Where the data folder lacks the real set, the
// sample that ships with dlrosetta stands in. `ROSETTA_DATA` names the folder; the word `sample` in its place always
// gives the sample. Standard library only.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace dlrosetta::data {

/// Images of 3×32×32 one after the other, in 0–1, and the label of each.
struct Images {
    std::vector<float> images;  // (N, 3, 32, 32)
    std::vector<int64_t> labels;  // (N,)
};

namespace detail {

namespace fs = std::filesystem;

inline const fs::path sample_file = fs::path(__FILE__).parent_path() / "../../sample/digits.bin";
constexpr size_t sample_train = 1437;  // records; the rest of the sample is for testing
constexpr size_t cifar_records = 10000, cifar_pixels = 3 * 32 * 32;  // of a file; of an image

inline std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

/// The data folder, found as dlrosetta/data/sources.py does.
inline fs::path folder() {
    if (auto named = variable("ROSETTA_DATA"); !named.empty())
        return named.starts_with("~/") ? fs::path(variable("HOME")) / named.substr(2) : fs::path(named);
#ifdef __APPLE__
    return fs::path(variable("HOME")) / "Library/Application Support/dlrosetta/data";
#else
    auto base = variable("XDG_DATA_HOME");
    return (base.empty() ? fs::path(variable("HOME")) / ".local/share" : fs::path(base)) / "dlrosetta/data";
#endif
}

inline std::vector<uint8_t> bytes(const fs::path& path) {
    std::vector<uint8_t> content(fs::file_size(path));
    std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(content.data()), content.size());
    return content;
}

inline Images cifar10(const fs::path& folder, const std::vector<std::string>& names) {
    constexpr size_t record = 1 + cifar_pixels;
    Images found;
    found.images.reserve(names.size() * cifar_records * cifar_pixels);
    for (const auto& name : names) {
        auto path = folder / name;
        auto size = fs::is_regular_file(path) ? fs::file_size(path) : 0;
        if (size != cifar_records * record)
            throw std::runtime_error(path.string() + ": expected " + std::to_string(cifar_records * record) +
                                     " bytes. Received: " + std::to_string(size) + ". Next: remove " + folder.string() +
                                     " and fetch it again");
        auto content = bytes(path);
        for (auto at = content.begin(); at != content.end(); at += record) {
            found.labels.push_back(*at);
            std::transform(at + 1, at + record, std::back_inserter(found.images), [](uint8_t p) { return p / 255.0f; });
        }
    }
    return found;
}

/// Handwritten digits of 8×8 pixels in 0–16, each pixel repeated 4×4 in three equal channels.
inline std::pair<Images, Images> cifar10_sample() {
    constexpr size_t record = 1 + 8 * 8;
    std::pair<Images, Images> found;
    auto content = bytes(sample_file);
    for (size_t number = 0; number * record < content.size(); ++number) {
        auto& set = number < sample_train ? found.first : found.second;
        const uint8_t* at = &content[number * record];
        set.labels.push_back(at[0]);
        for (size_t pixel = 0; pixel < cifar_pixels; ++pixel) {
            size_t row = pixel % 1024 / 32, column = pixel % 32;
            set.images.push_back(at[1 + row / 4 * 8 + column / 4] / 16.0f);
        }
    }
    return found;
}

}  // namespace detail

/// CIFAR-10 for training and for testing (50,000 and 10,000 images), or the sample (1,437 and 360). Throws
/// std::runtime_error where the data folder holds a damaged copy.
inline std::pair<Images, Images> cifar10() {
    const std::vector<std::string> train{
        "data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"};
    const std::string test = "test_batch.bin";
    auto folder = detail::folder() / "cifar-10-batches-bin";
    auto here = [&](const std::string& name) { return std::filesystem::is_regular_file(folder / name); };
    if (detail::variable("ROSETTA_DATA") == "sample" || !(std::any_of(train.begin(), train.end(), here) || here(test)))
        return detail::cifar10_sample();
    return {detail::cifar10(folder, train), detail::cifar10(folder, {test})};
}

}  // namespace dlrosetta::data
