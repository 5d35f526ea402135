-- The arguments from the seventh on, in order. A call takes some thousand of them at most.
local at = 7
local function each(count, command, key)
  local stop = at + count
  while at < stop do
    local to = math.min(at + 4000, stop) - 1
    redis.call(command, key, unpack(ARGV, at, to))
    at = to + 1
  end
end
local function send()
  for i = 3, #KEYS do
    local field, channel, head, text, id, message = unpack(ARGV, at, at + 5)
    at = at + 6
    local before = redis.call('HGET', KEYS[1], field) or string.rep('\0', 16)
    redis.call('HSET', KEYS[1], field, id)
    redis.call('XADD', KEYS[i], 'MAXLEN', '~', 10000, text, 'm', message)
    redis.call('PUBLISH', channel, head .. id .. before .. message)
  end
end
