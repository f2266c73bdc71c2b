// Reads and writes safetensors files (https://github.com/huggingface/safetensors): a little-endian 64-bit header
// length, a JSON header of name -> {dtype, shape, data_offsets}, then the raw little-endian buffers.

#pragma once

#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>

#include <nlohmann/json.hpp>
#include <torch/torch.h>

namespace tensors {

using Tensors = std::map<std::string, torch::Tensor>;

inline const std::map<std::string, torch::ScalarType> dtypes{
    {"F64", torch::kFloat64}, {"F32", torch::kFloat32}, {"I64", torch::kInt64}, {"I32", torch::kInt32},
    {"U8", torch::kUInt8},    {"BOOL", torch::kBool},
};

inline Tensors load(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    uint64_t length = 0;
    file.read(reinterpret_cast<char*>(&length), sizeof length);
    std::string header(file ? length : 0, ' ');
    file.read(header.data(), header.size());
    if (!file) throw std::runtime_error("Expected a safetensors file at " + path + ". Received: none, or a part");
    auto start = file.tellg();
    auto described = nlohmann::json::parse(header);
    Tensors found;
    for (auto& [name, entry] : described.items()) {
        if (name == "__metadata__") continue;
        auto tensor = torch::empty(
            entry.at("shape").get<std::vector<int64_t>>(), dtypes.at(entry.at("dtype").get<std::string>()));
        file.seekg(start + entry.at("data_offsets").at(0).get<std::streamoff>());
        file.read(static_cast<char*>(tensor.data_ptr()), tensor.nbytes());
        if (!file) throw std::runtime_error("Expected all of " + name + " in " + path + ". Received: a file cut short");
        found[name] = tensor;
    }
    return found;
}

inline void save(const std::string& path, const Tensors& given) {
    nlohmann::json header = nlohmann::json::object();
    std::vector<torch::Tensor> kept;
    uint64_t offset = 0;
    for (auto& [name, tensor] : given) {
        auto known = std::find_if(
            dtypes.begin(), dtypes.end(), [&](auto& one) { return one.second == tensor.scalar_type(); });
        if (known == dtypes.end())
            throw std::runtime_error(
                "Expected another dtype for " + name + ". Received: " + toString(tensor.scalar_type()));
        kept.push_back(tensor.detach().cpu().contiguous());
        header[name] = {{"dtype", known->first},
                        {"shape", tensor.sizes().vec()},
                        {"data_offsets", {offset, offset + tensor.nbytes()}}};
        offset += tensor.nbytes();
    }
    auto text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    uint64_t length = text.size();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof length);
    file << text;
    for (auto& tensor : kept) file.write(static_cast<const char*>(tensor.data_ptr()), tensor.nbytes());
    if (!file.flush())
        throw std::runtime_error("[Errno " + std::to_string(errno) + "] " + std::strerror(errno) + ": " + path);
}

}  // namespace tensors
